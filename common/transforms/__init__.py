"""MONAI transforms: loading, slicing, intensity, DCT and DWT."""
