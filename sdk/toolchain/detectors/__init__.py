"""Person detectors as engines: a graph made elsewhere in our form, cut before its NMS, proved, typed and written."""
