"""Where frames and boxes come from and where poses go: pictures, videos, cameras, drawing. No network runs here."""
