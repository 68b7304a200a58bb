"""The live page: a pipeline over cameras, and a small server that shows it to browsers. Needs the extra `live`.

Two worlds meet here and share nothing but newest-frame boxes: threads that take frames, estimate, encode and record
(`watching`, `publishing`, `recording`), and one event loop that talks to viewers (`viewers`, `application`, `serving`).
Neither waits for the other. docs/live.md tells how it is used.

    with sdk.Cameras(["0"]) as cameras:
        scene = Scene(names=("0",), skeleton=..., scale=..., engine="body", device=cameras.device)
        serve(Watch(cameras, scene), ServingOptions())
"""
