// A stand-in for a plan, on GPUs that no installed TensorRT makes plans for: the run time around it is checked all the
// same. Each axis' logits are weighted sums of the crop along the other axis, added up in one fixed order, so that numpy
// computes the same bits (stand_in.py):
//
//     x[n, k, b] = sum over channels c and rows y of w(k, c, y) crop[n, c, y, column of b]       y[n, k, b]: likewise
//     w(k, c, i) = ((31 k + 17 c + 7 i) mod 64 - 32) / 32
//
// A detector's has a row for each cell of STRIDE x STRIDE pixels of its input, by the pixel (px, py) in the cell's middle:
//
//     score = crop[0, py, px]     box: middle (px, py), sides (1 + crop[1, py, px]) STRIDE and (1 + crop[2, py, px]) 2 STRIDE
//
// Compiled without fused multiply-add. `half`: crops and outputs are float16, sums are float32.

#include <cuda_runtime.h>

#include "sdk_ops.h"

namespace {

using sdk::Half;

struct Shape {
    int joints, height, width, bins;
    bool along_x;
};

__device__ float weight(int joint, int channel, int i) {
    return static_cast<float>((31 * joint + 17 * channel + 7 * i) % 64 - 32) / 32.0f;
}

__device__ void store(float* to, float value) { *to = value; }
// A whole word: ptxas up to 13.0 loses the low byte of a half that is stored byte by byte, as memcpy does it.
__device__ void store(Half* to, float value) { to->bits = __half_as_ushort(__float2half_rn(value)); }

template <class T> __global__ void logits_kernel(T* out, const T* crops, Shape s) {
    const int bin = blockIdx.x * 64 + threadIdx.x, joint = blockIdx.y, person = blockIdx.z;
    if (bin >= s.bins) return;
    const int place = bin * (s.along_x ? s.width : s.height) / s.bins, length = s.along_x ? s.height : s.width;
    float sum = 0.0f;
    for (int channel = 0; channel < 3; channel++)
        for (int i = 0; i < length; i++) {
            const int row = s.along_x ? i : place, column = s.along_x ? place : i;
            const float pixel = sdk::as_float(crops[((person * 3 + channel) * s.height + row) * s.width + column]);
            sum += weight(joint, channel, i) * pixel;
        }
    store(out + (person * s.joints + joint) * s.bins + bin, sum);
}

constexpr int STRIDE = 32;

template <class T> __global__ void rows_kernel(T* out, const T* crop, int height, int width) {
    const int columns = width / STRIDE, row = blockIdx.x * 64 + threadIdx.x;
    if (row >= columns * (height / STRIDE)) return;
    const int px = row % columns * STRIDE + STRIDE / 2, py = row / columns * STRIDE + STRIDE / 2, plane = height * width;
    const T* pixel = crop + py * width + px;
    const float half_width = (1.0f + sdk::as_float(pixel[plane])) * (STRIDE / 2), half_height = (1.0f + sdk::as_float(pixel[2 * plane])) * STRIDE;
    const float x = static_cast<float>(px), y = static_cast<float>(py);
    const float values[5] = {x - half_width, y - half_height, x + half_width, y + half_height, sdk::as_float(pixel[0])};
    for (int i = 0; i < 5; i++) store(out + 5 * row + i, values[i]);
}

template <class T> void launch_rows(void* rows, const void* crop, int height, int width, cudaStream_t stream) {
    T* to = static_cast<T*>(rows);
    const T* source = static_cast<const T*>(crop);
    const int blocks = (width / STRIDE * (height / STRIDE) + 63) / 64;
    rows_kernel<T><<<dim3(blocks), dim3(64), 0, stream>>>(to, source, height, width);
}

template <class T>
void launch(void* x, void* y, const void* crops, int count, Shape s, int y_bins, cudaStream_t stream) {
    const T* source = static_cast<const T*>(crops);
    T* to = static_cast<T*>(x);
    dim3 grid((s.bins + 63) / 64, s.joints, count);
    logits_kernel<T><<<grid, dim3(64), 0, stream>>>(to, source, s);
    s.along_x = false;
    s.bins = y_bins;
    to = static_cast<T*>(y);
    grid = dim3((s.bins + 63) / 64, s.joints, count);
    logits_kernel<T><<<grid, dim3(64), 0, stream>>>(to, source, s);
}

}  // namespace

extern "C" int stand_in_enqueue(void* x, void* y, const void* crops, int count, int joints, int height, int width,
                                int x_bins, int y_bins, int half, cudaStream_t stream) {
    const Shape shape = {joints, height, width, x_bins, true};
    if (half) launch<Half>(x, y, crops, count, shape, y_bins, stream);
    else launch<float>(x, y, crops, count, shape, y_bins, stream);
    return cudaGetLastError();
}

extern "C" int stand_in_detect(void* rows, const void* crop, int height, int width, int half, cudaStream_t stream) {
    if (half) launch_rows<Half>(rows, crop, height, width, stream);
    else launch_rows<float>(rows, crop, height, width, stream);
    return cudaGetLastError();
}
