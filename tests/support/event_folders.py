"""Folders of recorded events in the formats of the published sets, written byte by byte for tests."""

import struct

import flatbuffers
import h5py
import lz4.frame
import numpy as np
import zstandard

CIFAR = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def events(rng, count, size, span):
    """Return t (sorted, 0 first, microseconds), x, y, p of `count` random events."""
    t = np.sort(rng.integers(0, span, count))
    t[0] = 0
    return t, rng.integers(0, size, count), rng.integers(0, size, count), rng.integers(0, 2, count)


def saccade_bytes(t, x, y, p):
    """Events of 40 bits, N-MNIST's."""
    rows = np.stack([x, y, (p << 7) | (t >> 16), (t >> 8) & 255, t & 255], axis=1)
    return rows.astype(np.uint8).tobytes()


def aedat2_bytes(t, x, y, p):
    """AEDAT 2.0 of a DVS128, whose x and y count from the lower right and whose 0 is brighter."""
    address = (1 - p) | (127 - x) << 1 | (127 - y) << 8
    head = b"#!AER-DAT2.0\r\n# This is a raw AE data file - do not edit\r\n#  created by a test\r\n"
    return head + np.stack([address, t], axis=1).astype(">u4").tobytes()


def aedat3_bytes(t, x, y, p, packet=50, invalid=0, more=True):
    """AEDAT 3.1 with packets of so many polarity events and, with `more`, packets of another kind."""
    words = np.stack([x << 17 | y << 2 | p << 1 | 1, t & (2**31 - 1)], axis=1).astype("<u4")
    words[:invalid, 0] &= ~np.uint32(1)
    body = b"#!AER-DAT3.1\r\n#Format: RAW\r\n#Source 0: DVS128\r\n#!END-HEADER\r\n"
    for overflow in np.unique(t >> 31).tolist():  # all times of a packet share their high bits
        same = words[t >> 31 == overflow]
        for first in range(0, len(same), packet):
            held = same[first : first + packet]
            body += struct.pack("<hhiiiiii", 1, 0, 8, 4, overflow, len(held), len(held), len(held))
            body += held.tobytes()
            if more:
                body += struct.pack("<hhiiiiii", 0, 0, 4, 0, 0, 2, 2, 2) + b"\xff" * 8
    return body


def folded(body, compression):
    """Compress a body as AEDAT 4 numbers it: 0 not, 1 and 2 LZ4, 3 and 4 Zstandard."""
    if compression in (1, 2):
        return lz4.frame.compress(body)
    return zstandard.ZstdCompressor().compress(body) if compression else body


DESCRIBED = (
    '<dv version="2.0"><node name="outInfo" path="/mainloop/Recorder/outInfo/">'
    '<node name="0" path="/mainloop/Recorder/outInfo/0/"><attr key="typeIdentifier" type="string">EVTS'
    '</attr><node name="info" path="/mainloop/Recorder/outInfo/0/info/"><attr key="sizeX" type="int">128'
    '</attr><attr key="sizeY" type="int">128</attr></node></node></node></dv>'
)


def aedat4_head(compression, index):
    builder = flatbuffers.Builder()
    text = builder.CreateString(DESCRIBED)
    builder.StartObject(3)
    builder.PrependInt32Slot(0, compression, 0)
    builder.PrependInt64Slot(1, index, -1)
    builder.PrependUOffsetTRelativeSlot(2, text, 0)
    builder.FinishSizePrefixed(builder.EndObject(), b"IOHE")
    return b"#!AER-DAT4.0\r\n" + bytes(builder.Output())


def aedat4_packet(t, x, y, p):
    builder = flatbuffers.Builder()
    builder.StartVector(16, len(t), 8)
    for time, column, row, brighter in reversed(list(zip(*(a.tolist() for a in (t, x, y, p)), strict=True))):
        builder.Prep(8, 16)
        builder.Pad(3)
        builder.PrependBool(bool(brighter))
        builder.PrependInt16(row)
        builder.PrependInt16(column)
        builder.PrependInt64(time)
    vector = builder.EndVector()
    builder.StartObject(1)
    builder.PrependUOffsetTRelativeSlot(0, vector, 0)
    builder.FinishSizePrefixed(builder.EndObject(), b"EVTS")
    return bytes(builder.Output())


def aedat4_bytes(t, x, y, p, packet=50, compression=1, more=False):
    """AEDAT 4: packets of events and, with `more`, one of another stream and an index at the end."""
    packets = [
        (0, aedat4_packet(*(values[first : first + packet] for values in (t, x, y, p))))
        for first in range(0, len(t), packet)
    ]
    if more:
        packets.insert(1, (1, b"\x14\0\0\0\x04\0\0\0TRIG" + bytes(12)))
    body = b""
    for stream, unfolded in packets:
        payload = folded(unfolded, compression)
        body += struct.pack("<ii", stream, len(payload)) + payload
    if not more:
        return aedat4_head(compression, -1) + body
    place = len(aedat4_head(compression, 0)) + len(body)
    return aedat4_head(compression, place) + body + b"an index of packets"


def write_shd(folder, train=20, test=6, chunks=None, filters=None, seed=1):
    """Write shd_train.h5 and shd_test.h5; return by part [(times, channels, class)]."""
    rng = np.random.default_rng(seed)
    made = {}
    for part, count in (("train", train), ("test", test)):
        lengths = rng.integers(1, 400, count)
        times = [np.sort(rng.random(n) * 1.2).astype(np.float16) for n in lengths]
        units = [rng.integers(0, 700, n).astype(np.uint16) for n in lengths]
        labels = rng.integers(0, 20, count).astype(np.uint16)
        with h5py.File(folder / f"shd_{part}.h5", "w") as file:
            for key, rows in (("spikes/times", times), ("spikes/units", units)):
                kind = h5py.vlen_dtype(rows[0].dtype)
                more = {"chunks": (chunks,), "maxshape": (None,), **(filters or {})} if chunks else {}
                held = file.create_dataset(key, (count,), kind, **more)
                for number, row in enumerate(rows):
                    held[number] = row
            file["labels"] = labels
            file["extra/speaker"] = np.zeros(count, np.uint16)
            file["extra/keys"] = np.array([f"class {n}".encode() for n in range(20)])
        made[part] = list(zip(times, units, labels.tolist(), strict=True))
    return made


def write_n_mnist(folder, train=3, test=1, seed=2):
    """Write Train and Test with so many recordings a digit; return by part [(digit, events)]."""
    rng = np.random.default_rng(seed)
    made = {"Train": [], "Test": []}
    for part, count in (("Train", train), ("Test", test)):
        for digit in range(10):
            inner = folder / part / str(digit)
            inner.mkdir(parents=True)
            for number in range(count):
                made[part].append((digit, events(rng, int(rng.integers(20, 90)), 34, 300_000)))
                (inner / f"{number:05}.bin").write_bytes(saccade_bytes(*made[part][-1][1]))
    return made


def write_gestures(folder, train=2, test=1, seed=3):
    """Write DVS-Gesture as tonic stores it, so many people a part; times are whole milliseconds."""
    rng = np.random.default_rng(seed)
    made = {"Train": [], "Test": []}
    for part, count in (("Train", train), ("Test", test)):
        for person in range(count):
            inner = folder / f"ibmGesture{part}" / f"user{person + 1:02}_led"
            inner.mkdir(parents=True)
            for label in range(11):
                t, x, y, p = events(rng, 60, 128, 6000)
                np.save(inner / f"{label}.npy", np.stack([x, y, p, t], axis=1).astype(np.float64))
                made[part].append((label, (t * 1000, x, y, p)))
    return made


def write_gesture_recordings(folder, train=2, test=1, seed=4):
    """Write DVS-Gesture as published: recordings of several trials, with lists; times pass 2^31."""
    rng = np.random.default_rng(seed)
    made = {"train": [], "test": []}
    for part, count in (("train", train), ("test", test)):
        names = []
        for person in range(count):
            base = 2**31 - 8_000_000
            stem = f"{part}{person}_fluorescent"
            t, x, y, p = events(rng, 800, 128, 24_000_000)
            t = t + base
            (folder / f"{stem}.aedat").write_bytes(aedat3_bytes(t, x, y, p, packet=80, invalid=3))
            lines = ["class,startTime_usec,endTime_usec"]
            for turn, label in enumerate(rng.permutation(11)[:5] + 1):
                start, end = base + turn * 4_000_000 + 1000, base + turn * 4_000_000 + 3_900_000
                lines.append(f"{label},{start},{end}")
                inside = (t >= start) & (t < end) & (np.arange(len(t)) >= 3)
                made[part].append((int(label) - 1, (t[inside] - start, x[inside], y[inside], p[inside])))
            (folder / f"{stem}_labels.csv").write_text("\n".join(lines) + "\n")
            names.append(f"{stem}.aedat")
        (folder / f"trials_to_{part}.txt").write_text("\n".join(names) + "\n\n")
    return made


def write_cifar10_dvs(folder, each=3, version=2, seed=5):
    """Write a folder a class with so many recordings each; return [(class, events)] in order."""
    rng = np.random.default_rng(seed)
    made = []
    for label, name in enumerate(CIFAR):
        (folder / name).mkdir(parents=True)
        for number in range(each):
            t, x, y, p = events(rng, 70, 128, 1_300_000)
            made.append((label, (t, x, y, p)))
            late = t + 5_000_000
            if version == 2:
                (folder / name / f"cifar10_{name}_{number}.aedat").write_bytes(aedat2_bytes(late, x, y, p))
            else:
                (folder / name / f"cifar10_{name}_{number}.aedat4").write_bytes(aedat4_bytes(late, x, y, p))
    return made


def write_aedat4(folder):
    """Write CIFAR10-DVS in AEDAT 4."""
    return write_cifar10_dvs(folder, version=4)
