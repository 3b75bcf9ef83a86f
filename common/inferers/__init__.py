"""From noise to images; from volumes to slices and back."""
