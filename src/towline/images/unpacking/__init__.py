"""The process that unpacks layers: ``python -m towline.images.unpacking``. It imports nothing but the
standard library, so it starts quickly; what it reads is hostile, so it can write in the store only."""
