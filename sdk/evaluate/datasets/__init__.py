"""What is to be cropped and what is true: annotation files read and checked into one `Dataset`."""
