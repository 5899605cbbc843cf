#!/usr/bin/env python3
"""Reads what test_monitor and nn_fit write with TensorBoard's own reader, and the pictures with Pillow.

usage: check_events.py [folder with test_monitor and test_train]      Without it, they are built first. Prints  N passed, N failed, N skipped  as the test programs do.
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

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
failures = 0


def check(name, ok):
    global failures
    if not ok:
        failures += 1
        print("failed:", name)


def main():
    with tempfile.TemporaryDirectory() as folder:
        env = dict(os.environ, NN_TEST_DIR=folder)
        for name in "test_monitor", "test_train":
            program = os.path.join(sys.argv[1] if len(sys.argv) > 1 else folder, name)
            if len(sys.argv) < 2:
                subprocess.check_call([os.environ.get("CC", "cc"), "-std=c11", "-O0", "-w", "-DNN_NO_SIMD", "-I", ROOT,
                                       os.path.join(ROOT, "tests", name + ".c"), "-o", program, "-lm", "-lpthread"])
            subprocess.run([program, "event_file" if name == "test_monitor" else "log_dir"], env=env, check=True, stdout=subprocess.DEVNULL)
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
        # what nn_fit logs: three epochs, then two more by a second run that resumes
        steps, tags = [], set()
        for file in glob.glob(os.path.join(folder, "nn_logs", "*tfevents*")):
            events = EventAccumulator(file, size_guidance={"scalars": 0, "histograms": 0})
            events.Reload()
            tags |= set(events.Tags()["scalars"])
            steps += [e.step for e in events.Scalars("loss/validation")]
            check("weights", "weights/fc1.weight" in events.Tags()["histograms"] and events.Histograms("weights/fc1.weight")[0].histogram_value.num == 64)
        check("epochs", sorted(steps) == [1, 2, 3, 4, 5])
        check("fit tags", {"loss/train", "loss/validation", "accuracy/train", "accuracy/validation", "lr", "step/loss", "step/lr"} <= tags)
    print("%d passed, %d failed, 0 skipped" % (failures == 0, failures != 0))
    return failures != 0


sys.exit(main())
