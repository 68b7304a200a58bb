#!/usr/bin/env bash
# label-studio-sdk 2.1.2, COCO export: a picture on which the joints of two persons were marked becomes ONE keypoint record.
# Each joint is the one of its name that was marked last, so the record has the first person's hip and the second one's
# nose, and a box about both. The persons' own boxes stand in other records, of another category, without keypoints.
# Trained on, such a file gives a network of impossible persons; by its form it is a plain COCO keypoint file.
# Needs: bash, python3, pip. Installs into a temporary folder, runs without this project, and fails if the behaviour changes.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check label-studio-sdk==2.1.2
"$folder/venv/bin/python" - "$folder" 2> /dev/null << 'PYTHON'
import json, sys
from importlib.metadata import version
from pathlib import Path

from label_studio_sdk.converter import Converter

VIEW = """<View><Image name="image" value="$image"/>
<RectangleLabels name="box" toName="image"><Label value="person"/></RectangleLabels>
<KeyPointLabels name="joint" toName="image">
<Label value="nose" model_index="0"/><Label value="hip" model_index="1"/></KeyPointLabels></View>"""


def mark(kind, name, **value):
    size = {"original_width": 100, "original_height": 100, "image_rotation": 0}
    place = {"type": kind, "from_name": name, "to_name": "image", "id": f"{name}{value['x']}{value['y']}"}
    return {**place, **size, "value": value}


def box(x):
    return mark("rectanglelabels", "box", x=x, y=10, width=30, height=80, rotation=0, rectanglelabels=["person"])


def joint(x, y, name):
    return mark("keypointlabels", "joint", x=x, y=y, width=1, keypointlabels=[name])


first = [box(5), joint(20, 20, "nose"), joint(15, 60, "hip")]
second = [box(60), joint(75, 20, "nose")]                      # the hip of the second person is hidden
folder = Path(sys.argv[1])
task = [{"id": 1, "data": {"image": "a.jpg"}, "annotations": [{"id": 1, "result": first + second}]}]
(folder / "task.json").write_text(json.dumps(task))
out = folder / "out"
Converter(VIEW, str(folder)).convert_to_coco(
    str(folder / "task.json"), str(out), output_image_dir=str(out / "images"), is_dir=False
)
document = json.loads((out / "result.json").read_text())
print("label-studio-sdk", version("label-studio-sdk"))
for record in document["categories"] + document["annotations"]:
    print(record)
with_joints = [record for record in document["annotations"] if "keypoints" in record]
without = [record for record in document["annotations"] if "keypoints" not in record]
assert [record["keypoints"] for record in with_joints] == [[75, 20, 2, 15, 60, 2]], "changed: joints are no longer mixed"
assert len(without) == 2 and {r["category_id"] for r in without} != {r["category_id"] for r in with_joints}
print("as described: one record, nose of the second person (75, 20), hip of the first (15, 60)")
PYTHON
