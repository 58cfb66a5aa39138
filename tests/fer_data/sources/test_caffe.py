import contextlib
import struct

import numpy as np
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from hypothesis import given
from hypothesis import strategies as st

from fer_data import EXPRESSIONS, DataError
from fer_data.sources.caffe import read_caffe
from fer_data.sources.caffe_proto import blob, datum, parse_datum
from tests.fer_data.image_trees import PLAIN, SKIPPING, grey, save, write_tree

SCHEMA = {  # src/caffe/proto/caffe.proto: name, number, type, repeated
    "Datum": [
        ("channels", 1, "INT32", False), ("height", 2, "INT32", False), ("width", 3, "INT32", False),
        ("data", 4, "BYTES", False), ("label", 5, "INT32", False), ("float_data", 6, "FLOAT", True),
        ("encoded", 7, "BOOL", False),
    ],
    "BlobProto": [
        ("num", 1, "INT32", False), ("channels", 2, "INT32", False), ("height", 3, "INT32", False),
        ("width", 4, "INT32", False), ("data", 5, "FLOAT", True), ("diff", 6, "FLOAT", True),
    ],
}  # fmt: skip


def caffes(name: str):
    """Caffe's message class, by Google's protobuf."""
    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="caffe.proto", package="caffe", syntax="proto2")
    for message, fields in SCHEMA.items():
        described = file.message_type.add(name=message)
        for title, number, kind, repeated in fields:
            label = field.LABEL_REPEATED if repeated else field.LABEL_OPTIONAL
            added = described.field.add(name=title, number=number, type=getattr(field, f"TYPE_{kind}"), label=label)
            added.options.packed = repeated and message == "BlobProto"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"caffe.{name}"))


def test_a_datum_has_the_bytes_that_protobuf_prescribes():
    image = np.array([[1, 2, 3], [4, 5, 6]], np.uint8)
    by_hand = bytes([0x08, 1, 0x10, 2, 0x18, 3, 0x22, 6, 1, 2, 3, 4, 5, 6, 0x28, 200, 1])  # 200 = 0x48 | 0x80, 1
    assert datum(image, 200) == by_hand


def test_caffes_schema_reads_our_datum():
    image = np.arange(48 * 48, dtype=np.uint32).reshape(48, 48).astype(np.uint8)
    read = caffes("Datum").FromString(datum(image, 6))
    assert (read.channels, read.height, read.width, read.label, read.encoded) == (1, 48, 48, 6, False)
    assert read.data == image.tobytes()


def test_we_read_caffes_datum_in_colour_and_encoded(tmp_path):
    planes = np.zeros((3, 2, 2), np.uint8)
    planes[2] = 200  # blue, green, red
    colour = caffes("Datum")(channels=3, height=2, width=2, data=planes.tobytes(), label=4)
    image, label = parse_datum(colour.SerializeToString())
    assert (image.tolist(), label) == ([[60, 60], [60, 60]], 4)  # 0.299 * 200 = 59.8
    png = save(tmp_path / "face.png", grey(33)).read_bytes()
    image, label = parse_datum(caffes("Datum")(encoded=True, data=png, label=2).SerializeToString())
    assert (np.array_equal(image, grey(33)), label) == (True, 2)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"channels": 1, "height": 2, "width": 2, "data": b"123", "label": 0}, "3 bytes for 1 channels of 2×2"),
        ({"channels": 1, "height": 1, "width": 1, "data": b"1"}, "has no label"),
        ({"channels": 1, "height": 1, "width": 1, "data": b"1", "label": -1}, "label outside 0..255"),
        ({"channels": 1, "height": 1, "width": 1, "float_data": [1.0], "label": 1}, "holds floats"),
        ({"channels": 2, "height": 1, "width": 1, "data": b"12", "label": 1}, "2 channels of 1×1, expected 1 or 3"),
        ({"channels": 1, "height": 2**30, "width": 2**30, "data": b"1", "label": 1}, "too many pixels"),
    ],
)
def test_a_datum_that_holds_no_labelled_image_is_explained(fields, says):
    with pytest.raises(DataError, match=says):
        parse_datum(caffes("Datum")(**fields).SerializeToString())


@given(st.binary(max_size=60))
def test_any_bytes_are_a_datum_or_a_data_error(message):
    with contextlib.suppress(DataError):
        image, label = parse_datum(message)
        assert image.ndim == 2
        assert 0 <= label <= 255


def test_a_mean_image_is_caffes_binaryproto():
    mean = np.array([[1.5, -2.0, 255.0]], np.float32)
    by_hand = bytes([0x08, 1, 0x10, 1, 0x18, 1, 0x20, 3, 0x2A, 12]) + struct.pack("<3f", 1.5, -2.0, 255.0)
    assert blob(mean) == by_hand
    read = caffes("BlobProto").FromString(blob(mean))
    assert (read.num, read.channels, read.height, read.width) == (1, 1, 1, 3)
    assert list(read.data) == [1.5, -2.0, 255.0]


def lists(root, **contents: str):
    root.mkdir(exist_ok=True)
    for name, text in contents.items():
        (root / f"{name}.txt").write_text(text)
    return root


def test_index_lists_give_images_in_their_order(tmp_path):
    write_tree(tmp_path, {"train/0/1.png": 1, "train/1/2.png": 2, "val/0/3.png": 3, "all/4.png": 4, "all/5.png": 5})
    lists(tmp_path, train="1/2.png 1\r\n0/1.png 0\r\n\r\n", val="0/3.png 0", test="all/4.png\t0\nall/5.png 1\n")
    read = read_caffe(tmp_path, PLAIN)
    assert [split.images[:, 0, 0].tolist() for split in read.splits] == [[2, 1], [3], [4, 5]]
    assert [split.labels.tolist() for split in read.splits] == [[1, 0], [0], [0, 1]]
    assert read.classes == ("0", "1")


@pytest.mark.parametrize(
    ("labels", "written", "classes"),
    [
        (range(7), None, EXPRESSIONS),
        (range(3), None, ("0", "1", "2")),
        (range(2), "cats\ndogs\n", ("cats", "dogs")),
        (range(2), "cats\ndogs\nhorses\n", ("cats", "dogs", "horses")),
    ],
)
def test_labels_are_named(tmp_path, labels, written, classes):
    write_tree(tmp_path, {"1.png": 1})
    copies = [save(tmp_path / f"{label}.png", grey(label)).name for label in labels]
    lists(tmp_path, **dict.fromkeys(("train", "val", "test"), "".join(f"{c} {n}\n" for n, c in enumerate(copies))))
    if written:
        (tmp_path / "classes.txt").write_text(written)
    assert read_caffe(tmp_path, PLAIN).classes == classes


@pytest.mark.parametrize(
    ("written", "says"), [("only\n", "found 1 lines"), ("a\na\n", "different names"), ("a\nb\n", "found 0, 2, 3")]
)
def test_class_names_that_do_not_fit_are_refused(tmp_path, written, says):
    write_tree(tmp_path, {"0.png": 1, "2.png": 2, "3.png": 3})
    lists(tmp_path, **dict.fromkeys(("train", "val", "test"), "0.png 0\n2.png 2\n3.png 3\n"))
    (tmp_path / "classes.txt").write_text(written)
    with pytest.raises(DataError, match=says):
        read_caffe(tmp_path, PLAIN)


def test_labels_that_count_from_1_are_named_in_their_order(tmp_path):
    write_tree(tmp_path, {"1.png": 1, "2.png": 2})
    lists(tmp_path, **dict.fromkeys(("train", "val", "test"), "1.png 1\n2.png 2\n"))
    (tmp_path / "classes.txt").write_text("cats\ndogs\n")
    read = read_caffe(tmp_path, PLAIN)
    assert read.classes == ("cats", "dogs")
    assert [split.labels.tolist() for split in read.splits] == [[0, 1]] * 3
    assert "classes.txt names the numbers in their order: 1 cats, 2 dogs" in read.notes


def test_without_names_the_order_that_is_taken_is_said(tmp_path):
    copies = [save(tmp_path / f"{label}.png", grey(label)).name for label in range(7)]
    lists(tmp_path, **dict.fromkeys(("train", "val", "test"), "".join(f"{c} {n}\n" for n, c in enumerate(copies))))
    (note,) = read_caffe(tmp_path, PLAIN).notes
    assert "only numbers its classes (0, 1, 2, 3, 4, 5, 6): they are read in FER2013's order (0 Angry" in note


def test_gaps_in_the_labels_are_refused(tmp_path):
    write_tree(tmp_path, {"0.png": 1, "5.png": 2})
    lists(tmp_path, **dict.fromkeys(("train", "val", "test"), "0.png 0\n5.png 5\n"))
    with pytest.raises(DataError, match="found the labels 0, 5; expected 0, 1, 2, … without gaps"):
        read_caffe(tmp_path, PLAIN)


def test_faulty_lines_are_told_and_left_out_on_request(tmp_path):
    write_tree(tmp_path, {"0.png": 0, "1.png": 1})
    good = "0.png 0\n1.png 1\n"
    lists(tmp_path, train=good + "0.png\ngone.png 1\n../secret.png 0\n0.png happy\n", val=good, test=good)
    says = (
        "train.txt:3: expected a path and a label, as '0/00111.jpg 0'",
        "train.txt:5: '../secret.png' leads out of the folder; paths are relative and go down only",
        "train.txt:6: label 'happy', expected a number 0..255",
        "train.txt:4: gone.png: cannot be read: No such file or directory",
    )
    with pytest.raises(DataError) as raised:
        read_caffe(tmp_path, PLAIN)
    assert all(f"{tmp_path}: {line}" in str(raised.value).splitlines() for line in says)
    read = read_caffe(tmp_path, SKIPPING)
    assert set(read.left_out) == set(says)
    assert len(read.splits[0]) == 2


def test_an_image_under_two_labels_is_refused(tmp_path):
    write_tree(tmp_path, {"0.png": 0, "1.png": 1})
    lists(tmp_path, train="0.png 0\n1.png 1\n", val="0.png 1\n1.png 1\n", test="0.png 0\n1.png 1\n")
    with pytest.raises(DataError, match=r"val.txt:1: label 1, but train.txt:1 gives the same file 0"):
        read_caffe(tmp_path, PLAIN)


def test_an_image_and_a_link_to_it_under_two_labels_are_refused(tmp_path):
    write_tree(tmp_path, {"0.png": 0, "1.png": 1})
    (tmp_path / "link.png").symlink_to("0.png")
    (tmp_path / "second.png").hardlink_to(tmp_path / "1.png")
    listed = "0.png 0\n1.png 1\n"
    lists(tmp_path, train=listed, val=f"link.png 1\n{listed}", test=f"second.png 0\n{listed}")
    with pytest.raises(DataError) as raised:
        read_caffe(tmp_path, PLAIN)
    assert "val.txt:1: label 1, but train.txt:1 gives the same file 0" in str(raised.value)
    assert "test.txt:1: label 0, but train.txt:2 gives the same file 1" in str(raised.value)
