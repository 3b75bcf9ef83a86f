"""DCT, zigzag, tokens, statistics and Haar wavelets as pure tensor functions."""
