// host/persons.h: which persons of a frame are which of those known, what is kept of these, and boxes of persons. No Python
// here.
//
// Of a person and a track, which was at a box B with joints J and scores S, moves by s pixels a frame and was not seen for m
// frames; sigma a joint's own, d the distance of a joint from the track's:
//
//     iou       intersection / union of both boxes; 0 where the union has no area
//     oks       mean of exp(-d^2 / (2 (2 sigma)^2 a)), a = max(share area(B), 1), over the joints that are fair in both;
//               0 where none is
//     likeness  (iou + oks) / 2, at B and J or at B and J moved by s (m + 1), where it is greater
//
// Pairs are made of the likest first; of equally like ones the person of the lower row, then the track of the lower row,
// comes first. Nobody is paired twice, nor below `least`, nor where a likeness is not a number.
//
// A track that is seen moves by half of what it did so far and half of what its box's middle moved now, a frame.
//
// Boxes, areas, places and motions are float32, as they come; a joint's similarity and their sum are float64, and float32 from
// the mean on. What is compared is so the same on every machine but for the last bits of `exp`.

#pragma once

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <numeric>
#include <vector>

namespace sdk {

// Row by row; `count` of them. Keypoints are `joints` x 2.
struct Persons {
    const float *boxes, *keypoints, *scores;
    int64_t count;
};

struct Tracks {
    float *boxes, *keypoints, *scores, *steps;  // steps: x and y
    int64_t* missed;
    int64_t count;
};

struct LikenessRule {
    const double* kernels;  // 2 (2 sigma)^2 of each joint
    int64_t joints;
    double area_share;
    float fair;
    double least;  // above 0
};

inline float area_of_sides(float width, float height) { return (width > 0.0f ? width : 0.0f) * (height > 0.0f ? height : 0.0f); }

inline float box_iou(const float* a, const float* b) {
    const float common = area_of_sides(std::min(a[2], b[2]) - std::max(a[0], b[0]), std::min(a[3], b[3]) - std::max(a[1], b[1]));
    const float both = area_of_sides(a[2] - a[0], a[3] - a[1]) + area_of_sides(b[2] - b[0], b[3] - b[1]) - common;
    return both > 0.0f ? common / both : 0.0f;
}

// The rows of `most` boxes, ascending: first of those that lie on one of `before`, by an IoU of `least`, then of the highest
// scores; of equal ones the lower rows. most <= count.
inline void most_rows(int64_t* rows, int64_t most, const float* boxes, const float* scores, int64_t count, const float* before,
                      int64_t befores, float least) {
    std::vector<char> met(count);
    for (int64_t i = 0; i < count; i++)
        for (int64_t j = 0; j < befores && !met[i]; j++) met[i] = box_iou(boxes + 4 * i, before + 4 * j) >= least;
    const auto score = [&](int64_t row) { return scores[row] == scores[row] ? scores[row] : -HUGE_VALF; };  // NaN last
    std::vector<int64_t> order(count);
    std::iota(order.begin(), order.end(), 0);
    std::sort(order.begin(), order.end(), [&](int64_t a, int64_t b) {
        if (met[a] != met[b]) return met[a] > met[b];
        return score(a) != score(b) ? score(a) > score(b) : a < b;
    });
    std::sort(order.begin(), order.begin() + most);
    std::copy(order.begin(), order.begin() + most, rows);
}

// The box around a person's counted joints, wider by `margin` of its sides at each side; NaN where they span no area.
inline void box_around(float* box, const float* keypoints, const bool* counted, int64_t joints, float margin) {
    bool spans = true;
    for (int axis = 0; axis < 2; axis++) {
        float low = HUGE_VALF, high = -HUGE_VALF;
        for (int64_t k = 0; k < joints; k++) {
            const float place = keypoints[2 * k + axis];
            if (!counted[k]) continue;
            if (place < low || place != place) low = place;  // what is not a number stays
            if (place > high || place != place) high = place;
        }
        const float side = high - low, beyond = margin * side;
        box[axis] = low - beyond;
        box[axis + 2] = high + beyond;
        spans = spans && !(side <= 0.0f);
    }
    if (!spans) std::fill(box, box + 4, NAN);
}

struct Pair {
    float likeness;
    int64_t person, track;
};

class Pairing {
  public:
    Pairing(const Persons& persons, const Tracks& tracks, const LikenessRule& rule)
        : persons_(persons), tracks_(tracks), rule_(rule), spreads_(tracks.count * rule.joints) {
        for (int64_t j = 0; j < tracks.count; j++) {
            const float* box = tracks.boxes + 4 * j;
            const double area = std::max(rule.area_share * static_cast<double>((box[2] - box[0]) * (box[3] - box[1])), 1.0);
            for (int64_t k = 0; k < rule.joints; k++) spreads_[j * rule.joints + k] = rule.kernels[k] * (area + DBL_EPSILON);
        }
    }

    // track_of[i]: the row of the track that person i is, or -1; how many are one.
    int64_t pair(int32_t* track_of) const {
        std::vector<Pair> like;
        for (int64_t i = 0; i < persons_.count; i++)
            for (int64_t j = 0; j < tracks_.count; j++) {
                const float likeness = likeness_of(i, j);
                if (static_cast<double>(likeness) >= rule_.least) like.push_back({likeness, i, j});
            }
        std::sort(like.begin(), like.end(), [](const Pair& a, const Pair& b) {
            if (a.likeness != b.likeness) return a.likeness > b.likeness;
            return a.person != b.person ? a.person < b.person : a.track < b.track;
        });
        std::fill(track_of, track_of + persons_.count, -1);
        std::vector<char> taken(tracks_.count);
        int64_t pairs = 0;
        for (const Pair& each : like) {
            if (track_of[each.person] >= 0 || taken[each.track]) continue;
            track_of[each.person] = static_cast<int32_t>(each.track);
            taken[each.track] = 1;
            pairs++;
        }
        return pairs;
    }

  private:
    // Some number below `least` where it is below.
    float likeness_of(int64_t i, int64_t j) const {
        const float frames = static_cast<float>(tracks_.missed[j] + 1), *step = tracks_.steps + 2 * j;
        const float x = step[0] * frames, y = step[1] * frames, here = likeness_at(i, j, 0.0f, 0.0f);
        return x == 0.0f && y == 0.0f ? here : std::max(here, likeness_at(i, j, x, y));
    }

    float likeness_at(int64_t i, int64_t j, float x, float y) const {
        const float* box = tracks_.boxes + 4 * j;
        const float there[4] = {box[0] + x, box[1] + y, box[2] + x, box[3] + y};
        const float iou = box_iou(persons_.boxes + 4 * i, there);
        // A mean is never above its greatest: most pairs are none, and need no exponential.
        const double needed = 2 * rule_.least - static_cast<double>(iou) - ROUNDING;
        if (needed > 0 && !(needed <= 1 && any_near(i, j, x, y, -std::log(needed)))) return 0.0f;
        return (iou + oks_at(i, j, x, y)) / 2;
    }

    // Whether a joint's similarity reaches e^-most.
    bool any_near(int64_t i, int64_t j, float x, float y, double most) const {
        for (int64_t k = 0; k < rule_.joints; k++)
            if (counted(i, j, k) && squared(i, j, k, x, y) <= most * spreads_[j * rule_.joints + k]) return true;
        return false;
    }

    float oks_at(int64_t i, int64_t j, float x, float y) const {
        double sum = 0;
        int64_t count = 0;
        for (int64_t k = 0; k < rule_.joints; k++) {
            if (!counted(i, j, k)) continue;
            sum += std::exp(-squared(i, j, k, x, y) / spreads_[j * rule_.joints + k]);
            count++;
        }
        return count ? static_cast<float>(sum / static_cast<double>(count)) : 0.0f;
    }

    bool counted(int64_t i, int64_t j, int64_t k) const {
        return persons_.scores[i * rule_.joints + k] >= rule_.fair && tracks_.scores[j * rule_.joints + k] >= rule_.fair;
    }

    double squared(int64_t i, int64_t j, int64_t k, float x, float y) const {
        const float* mine = persons_.keypoints + 2 * (i * rule_.joints + k);
        const float* there = tracks_.keypoints + 2 * (j * rule_.joints + k);
        const double across = static_cast<double>(mine[0]) - static_cast<double>(there[0] + x);
        const double down = static_cast<double>(mine[1]) - static_cast<double>(there[1] + y);
        return across * across + down * down;
    }

    static constexpr double ROUNDING = 1e-5;  // more than a likeness may gain by it

    const Persons& persons_;
    const Tracks& tracks_;
    const LikenessRule& rule_;
    std::vector<double> spreads_;  // of each track's joints: what d^2 is divided by
};

// A frame has passed, in which person i was track_of[i], or none. The most frames in a row that a track was missed for.
inline int64_t see_persons(const Tracks& tracks, const Persons& persons, const int32_t* track_of, int64_t joints) {
    for (int64_t j = 0; j < tracks.count; j++) tracks.missed[j]++;
    for (int64_t i = 0; i < persons.count; i++) {
        const int64_t j = track_of[i];
        if (j < 0) continue;
        const float frames = static_cast<float>(tracks.missed[j]), *box = persons.boxes + 4 * i;
        float moved[4], *before = tracks.boxes + 4 * j, *step = tracks.steps + 2 * j;
        for (int side = 0; side < 4; side++) moved[side] = (box[side] - before[side]) / frames;
        for (int axis = 0; axis < 2; axis++) step[axis] = step[axis] + ((moved[axis] + moved[axis + 2]) / 2 - step[axis]) / 2;
        memcpy(before, box, 4 * sizeof(float));
        memcpy(tracks.keypoints + 2 * j * joints, persons.keypoints + 2 * i * joints, 2 * joints * sizeof(float));
        memcpy(tracks.scores + j * joints, persons.scores + i * joints, joints * sizeof(float));
        tracks.missed[j] = 0;
    }
    int64_t longest = 0;
    for (int64_t j = 0; j < tracks.count; j++) longest = std::max(longest, tracks.missed[j]);
    return longest;
}

}  // namespace sdk
