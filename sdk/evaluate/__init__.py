"""Accuracy and latency of an engine as it is deployed. Rooms in the order in which data goes:

    datasets     annotation files -> what is to be cropped and what is true
    predictions  -> joints, through the run-time ops
    scores       -> figures: OKS, AP, PCK, one engine against another
    pages        -> what people look at
    speed        beside them: latency, power, the machine

`verify` walks the first three; `speed.benchmark` the last.
"""
