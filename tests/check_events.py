#!/usr/bin/env python3
"""Reads what test_monitor writes with TensorBoard's own reader, and the pictures with Pillow.

usage: check_events.py build/tests/test_monitor      Prints  N passed, N failed, N skipped  as the test programs do.
"""
import glob
import math
import os
import subprocess
import sys
import tempfile
import warnings

warnings.filterwarnings("ignore")
try:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
except ImportError:
    print("skipped: the Python package tensorboard is not installed")
    print("0 passed, 0 failed, 1 skipped")
    sys.exit(0)

failures = 0


def check(name, ok):
    global failures
    if not ok:
        failures += 1
        print("failed:", name)


def main():
    with tempfile.TemporaryDirectory() as folder:
        env = dict(os.environ, NN_TEST_DIR=folder)
        subprocess.run([sys.argv[1], "event_file"], env=env, check=True, stdout=subprocess.DEVNULL)
        files = sorted(glob.glob(os.path.join(folder, "nn_events", "*tfevents*")))
        check("two files", len(files) == 2)
        events = EventAccumulator(files[0], size_guidance={"tensors": 0, "scalars": 0, "histograms": 0, "images": 0})
        events.Reload()
        tags = events.Tags()
        check("tags", sorted(tags["scalars"]) == ["loss", "l\u00f6ss ?"] and len(tags["histograms"]) == 3 and tags["images"] == ["picture"])
        check("scalar", [(e.step, e.value) for e in events.Scalars("loss")] == [(3, 0.25)])
        check("nan", math.isnan(events.Scalars("l\u00f6ss ?")[0].value) and events.Scalars("l\u00f6ss ?")[0].step == 1234567890123)
        h = events.Histograms("weights")[0].histogram_value
        check("histogram", h.num == 998 and sum(h.bucket) == 998 and len(h.bucket) == 30 and h.min == 0 and abs(h.max - 9.99) < 1e-6)
        check("empty histogram", events.Histograms("nothing")[0].histogram_value.num == 0)
        image = events.Images("picture")[0]
        check("image", (image.width, image.height) == (3, 2))
        try:
            import io
            from PIL import Image
            picture = Image.open(io.BytesIO(image.encoded_image_string))
            picture.load()
            check("pixels", list(picture.getdata()) == [0, 51, 102, 153, 204, 255])
        except ImportError:
            print("skipped: the Python package Pillow is not installed")
        text = events.Tensors("note")[0].tensor_proto
        check("text", text.string_val[0] == b"**bold** <&> \n text" and "note" in events.PluginTagToContent("text"))
    print("%d passed, %d failed, 0 skipped" % (failures == 0, failures != 0))
    return failures != 0


sys.exit(main())
