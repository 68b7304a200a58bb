// shared/box_math.h: from a person's box to the affine of the crop, and to the frame pixels that the crop reads.
//
// The convention is mmpose's top-down affine without rotation. For the box (x1, y1, x2, y2) in frame pixels, a crop of
// h x w pixels and the padding p, in float64:
//
//     s = max(x2 - x1, (y2 - y1) w / h) p / w                      frame pixels a crop pixel
//     X = s x + (x1 + x2 - s w) / 2,  Y = s y + (y1 + y2 - s h) / 2
//
// rounded to float32 at the end. The mirrored crop takes (w - 1 - x, y) for (x, y).
//
// Refused, by number and kind, for the caller to put into words: a box with a number that is not finite, that reaches
// beyond 2^30 pixels, or whose second corner does not exceed its first. Numbers are judged as float32.

#pragma once

#include "crop_math.h"

namespace sdk {

constexpr float MAX_COORDINATE = 1073741824.0f;  // the crop moves no farther

enum class BoxFault : int32_t { none, not_finite, too_far, no_width, no_height };

SDK_FN BoxFault fault_of_box(const float* box) {
    for (int i = 0; i < 4; i++)
        if (!within(box[i], 3.402823466e38f)) return BoxFault::not_finite;
    for (int i = 0; i < 4; i++)
        if (!within(box[i], MAX_COORDINATE)) return BoxFault::too_far;
    if (!(box[2] > box[0])) return BoxFault::no_width;
    return box[3] > box[1] ? BoxFault::none : BoxFault::no_height;
}

// What of a crop depends on the network alone.
struct CropShape {
    int32_t height, width;
    double padding;
};

SDK_FN double larger(double a, double b) { return a >= b || a != a ? a : b; }

template <class T> SDK_FN void affine_from_box(float* affine, const T* box, const CropShape& shape) {
    const double x1 = box[0], y1 = box[1], x2 = box[2], y2 = box[3];
    const double width = shape.width, height = shape.height;
    const double scale = larger(x2 - x1, (y2 - y1) * (width / height)) * (shape.padding / width);
    affine[0] = affine[4] = static_cast<float>(scale);
    affine[1] = affine[3] = 0.0f;
    affine[2] = static_cast<float>((x1 + x2 - scale * width) / 2);
    affine[5] = static_cast<float>((y1 + y2 - scale * height) / 2);
}

SDK_FN void mirror_affine(float* mirrored, const float* affine, int32_t crop_width) {
    for (int row = 0; row < 2; row++) {
        const float* from = affine + 3 * row;
        float* to = mirrored + 3 * row;
        to[0] = -from[0];
        to[1] = from[1];
        to[2] = static_cast<float>(static_cast<double>(from[2]) + static_cast<double>(from[0]) * (crop_width - 1));
    }
}

// Of a crop that reads nothing, whatever the frame.
SDK_FN void affine_off_frame(float* affine) {
    affine[0] = affine[1] = affine[3] = affine[4] = 0.0f;
    affine[2] = affine[5] = -64.0f;
}

// Frame pixels, ends exclusive; empty where an end does not exceed its beginning.
struct Region {
    int32_t x0, y0, x1, y1;
    SDK_MEMBER bool empty() const { return x1 <= x0 || y1 <= y0; }
};

SDK_FN int32_t clipped(int32_t value, int32_t limit) { return value < 0 ? 0 : value > limit ? limit : value; }

// What lies between the least and the greatest of x0 + a * steps_a + b * steps_b, in whole pixels, and the taps beside it.
SDK_FN void reach(int32_t& first, int32_t& end, int64_t start, int64_t a, int64_t b, int32_t limit) {
    const int64_t low = start + (a < 0 ? a : 0) + (b < 0 ? b : 0), high = start + (a > 0 ? a : 0) + (b > 0 ? b : 0);
    first = clipped(whole_part(low), limit);
    end = clipped(whole_part(high) + 2, limit);
}

// Every pixel of the frame that a tap of this crop may fall on: exact, as the crop's own fixed point is.
SDK_FN Region region_of_crop(const float* affine, const CropShape& shape, int32_t frame_height, int32_t frame_width) {
    const FixedAffine fixed = fixed_from_affine(affine);
    Region region = {0, 0, 0, 0};
    if (!fixed.usable || shape.height < 1 || shape.width < 1) return region;
    const int64_t columns = (shape.width + TAP_COLUMNS - 1) / TAP_COLUMNS * TAP_COLUMNS - 1, rows = shape.height - 1;
    reach(region.x0, region.x1, fixed.x0, columns * fixed.xx, rows * fixed.xy, frame_width);
    reach(region.y0, region.y1, fixed.y0, columns * fixed.yx, rows * fixed.yy, frame_height);
    return region;
}

}  // namespace sdk
