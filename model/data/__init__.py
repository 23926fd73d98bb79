"""Reading a source: listing, decoding, the manifest and its splits.

No judgement of the data (that is `model.validation`).
"""
