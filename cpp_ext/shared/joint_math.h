// shared/joint_math.h: from the rows of one joint to its columns of the output, the same on CPU and GPU.

#pragma once

#include "../sdk_ops.h"

namespace sdk {

// What one row of logits came to. `variance` and `second` are read where the spec asks for them.
struct Found {
    Peak peak;
    double coordinate;  // crop pixels; of z, 0 to 2 along the row
    float variance;     // held, crop pixels^2; NaN without a peak
    double second;      // crop pixels, NaN without a second peak
};

// Bins per unit of a row's coordinate.
SDK_FN double ratio_of(const DecodeSpec& spec, int32_t axis) { return axis == 2 ? 0.5 * spec.z_bins : spec.split_ratio; }

// The second hypothesis: the second peak along each axis that has one, the first along the other; NaN without any.
SDK_FN void write_second(float* out, const Found& x, const Found& y, const float* affine) {
    const bool other_x = x.second == x.second, other_y = y.second == y.second;
    if (other_x || other_y)
        return write_point(out, other_x ? x.second : x.coordinate, other_y ? y.second : y.coordinate, affine);
    out[0] = out[1] = float_from_bits(NAN_BITS);
}

// `axes`: x, y and, with a third axis, z.
SDK_FN void write_joint(float* out, const Found* axes, const DecodeSpec& spec, const float* affine) {
    const Found &x = axes[0], &y = axes[1];
    const float score = joint_score(x.peak, y.peak, spec.score);
    write_point(out, x.coordinate, y.coordinate, affine);
    out[2] = score;
    out += 3;
    if (spec.z_bins > 0) {
        *out = depth_of(axes[2].coordinate, score > 0.0f && axes[2].peak.bin != NO_BIN, spec.depth, affine);
        out++;
    }
    if (spec.spread) {
        write_spread(out, x.variance, y.variance, affine);
        out += 2;
    }
    if (spec.second) write_second(out, x, y, affine);
}

}  // namespace sdk
