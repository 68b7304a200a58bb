"""From predictions to figures: OKS, AP, PCK, two engines compared, and published figures beside measured ones."""
