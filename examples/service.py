"""An HTTP service: a picture in, poses out; one estimator a worker process, opened when the worker starts.

pip install fastapi uvicorn
uvicorn --app-dir examples service:app --workers 2
curl -H 'Content-Type: image/jpeg' --data-binary @street.jpg 'localhost:8000/poses?box=410,90,560,480'
"""

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

import cv2
import numpy as np

try:
    from fastapi import FastAPI, HTTPException, Query, Request
    from fastapi.concurrency import run_in_threadpool
except ImportError:
    sys.exit("the service needs FastAPI, which is not installed; pip install fastapi uvicorn")

from sdk import PoseEstimator, SdkError

LARGEST_BYTES = 16 << 20


@asynccontextmanager
async def opened(app: FastAPI) -> AsyncIterator[None]:
    with PoseEstimator() as app.state.estimate:
        yield


app = FastAPI(lifespan=opened)


@app.post("/poses")
async def poses(request: Request, box: Annotated[list[str] | None, Query()] = None) -> dict:
    """The persons in the boxes (x1,y1,x2,y2 each) of the picture in the body; without boxes, in the whole picture."""
    body = await request.body()
    if len(body) > LARGEST_BYTES:
        raise HTTPException(413, f"a picture may have {LARGEST_BYTES} bytes")
    try:
        boxes = [[float(side) for side in each.split(",")] for each in box or []] or None
        return await run_in_threadpool(_found, request.app.state.estimate, body, boxes)
    except (SdkError, ValueError, cv2.error) as error:
        raise HTTPException(422, str(error)) from error


def _found(estimate: PoseEstimator, body: bytes, boxes: list[list[float]] | None) -> dict:
    frame = cv2.imdecode(np.frombuffer(body, np.uint8), cv2.IMREAD_COLOR)
    if frame is None:
        raise ValueError("the body is no picture that OpenCV reads")
    return estimate(frame, boxes).to_dict()


if __name__ == "__main__":
    sys.exit(f"a server runs this:\n{__doc__}")
