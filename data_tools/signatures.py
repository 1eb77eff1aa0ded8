"""The kind of a file by its first bytes, so that an error can name it if another kind was expected."""

SIGNATURES = {
    b"\x1f\x8b\x08": "a GZIP file",
    b"PK\x03\x04": "a ZIP archive, as Excel workbooks and .npz files are",
    b"PAR1": "a Parquet file",
    b"ARROW1": "an Arrow file",
    b"\x89HDF\r\n\x1a\n": "an HDF5 file",
    b"\x93NUMPY": "a NumPy array",
    b"\x80\x04\x95": "a Python pickle",
    b"\x80\x05\x95": "a Python pickle",
    b"\x28\xb5\x2f\xfd": "a Zstandard file",
    b"\x83\xafp\xd1": "a Riegeli file",
    b"\x89PNG\r\n\x1a\n": "a PNG picture",
    b"\xff\xd8\xff": "a JPEG picture",
    b"GIF8": "a GIF picture",
    b"BM": "a BMP picture",
    b"\xff\xfe": "a text in UTF-16",
    b"\xfe\xff": "a text in UTF-16",
    b"%PDF-": "a PDF document",
    b"<!DOCTYPE": "a web page, as failed downloads leave it",
    b"<!doctype": "a web page, as failed downloads leave it",
    b"<html": "a web page, as failed downloads leave it",
}
TAR = b"ustar"  # at TAR_PLACE
TAR_PLACE = 257
HEAD_BYTES = 512  # that `kind_of` looks at


def kind_of(head: bytes) -> str | None:
    """Return the kind of a file, like ``a PNG picture``, by its first `HEAD_BYTES` bytes; None if unknown."""
    if head[TAR_PLACE : TAR_PLACE + len(TAR)] == TAR:
        return "a tar archive, as WebDataset's shards are"
    return next((kind for signature, kind in SIGNATURES.items() if head.startswith(signature)), None)
