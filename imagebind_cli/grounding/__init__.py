"""Where in a picture, a map or a spectrogram a query is, and when in a recording, on a frozen model.

shares.py     the part of an embedding that each patch contributes
"""
