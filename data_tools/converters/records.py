"""Write the records of TFRecord files as sequences."""

from collections.abc import Callable, Mapping
from pathlib import Path

from ..conversion import Report
from ..errors import InputError
from ..folders import write_sequence
from .tfrecord import Damage, Feature, MissingRecords, Record, parse_example, read_records


def convert_records(
    path: Path,
    folders: Callable[[int], dict[str, Path]],
    read: Callable[[Mapping[str, Feature], str], tuple],
    skip_damaged: bool,
    expected: int = 0,
    certain: bool = True,
) -> Report:
    """Write the records of one TFRecord file as sequences.

    Args:
        path: the file.
        folders: n -> the sequence folders that record n becomes, by camera; none if it is not wanted. Folders
            that are there stay.
        read: (features of a record, camera) -> (frames, actions, positions). Raises `ValueError` with the
            fault.
        skip_damaged: list damaged records in the report instead of raising `InputError` with file, record and
            byte.
        expected: the least number of records in the file.
        certain: whether that number is certain; otherwise records that are missing at the end are only noted.
    """
    report = Report()
    present: set[Path] = set()

    def missing(number: int) -> dict[str, Path]:
        lacking = {camera: folder for camera, folder in folders(number).items() if not folder.is_dir()}
        present.update(folder for camera, folder in folders(number).items() if camera not in lacking)
        return lacking

    for record in read_records(path, lambda number: bool(missing(number)), expected, certain):
        if isinstance(record, Record):
            try:
                features = parse_example(record.data)
                recordings = [
                    (folder, read(features, camera)) for camera, folder in missing(record.number).items()
                ]
            except ValueError as error:
                record = Damage(path, record.number, record.offset, str(error))
            else:
                for folder, recording in recordings:
                    write_sequence(folder, *recording)
                    report.written += 1
        if isinstance(record, Damage):
            last = expected if isinstance(record, MissingRecords) else record.number + 1
            lost = [number for number in range(record.number, last) if missing(number)]
            if lost and isinstance(record, MissingRecords) and not certain:
                report.notes.append(str(record))
            elif lost and skip_damaged:
                report.left_out.append(str(record))
            elif lost:
                raise InputError(
                    f"{record}; restore this file, or leave such records out with --skip_damaged"
                )
    report.present = len(present)
    return report
