"""Past one machine: archives of pictures and videos, on one process or on Ray Data."""
