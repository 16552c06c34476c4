// The first block of a chain without its convolution's output: statistics and weight gradients follow from the covariance of
// what the taps read, which the images fix once and for all. Derivation: ../README.md, "The first block".
#pragma once

#include <omp.h>

#include <cmath>

#include "chain_first_rows.h"
#include "chain_groups.h"
#include "chain_pieces.h"
#include "chain_totals.h"

namespace sparsemeta::SPARSEMETA_ISA {

// A batch: its planes, and over all positions of the output the mean of what each tap reads and their covariance.
template <class T>
struct FirstImages {
  T* planes;
  double *mean, *covariance;  // [taps], [taps, taps]

  FirstImages(const FirstBlock& block, std::int64_t images, Pieces& pieces)
      : planes(pieces.take<T>(images * block.image + 64)),
        mean(pieces.take<double>(block.taps)),
        covariance(pieces.take<double>(block.taps * block.taps)) {}
};

// What is known of every output and every kept weight under the present parameters and their tangents.
template <class T>
struct FirstMemory {
  double *cov, *cov_d;                // [nnz]: of the tap with the output, with its tangent
  double *rstd, *mean_vx;             // [outputs]
  T *weight, *constant, *constant_d;  // folded with the normalisation: [2 nnz], [outputs]
  T *sums, *totals;                   // [threads, 2 nnz + 2 outputs, lanes] of what correlates with the taps and of all, [as many]
  std::int64_t size;                  // of the sums of a thread, with room for whole vectors
  double* moments;                    // [threads, taps + taps^2]

  FirstMemory(const FirstBlock& block, int threads, Pieces& pieces) {
    const auto outputs = block.outputs(), nnz = block.kept();
    for (auto** p : {&cov, &cov_d}) *p = pieces.take<double>(nnz);
    for (auto** p : {&rstd, &mean_vx}) *p = pieces.take<double>(outputs);
    weight = pieces.take<T>(2 * nnz);
    for (auto** p : {&constant, &constant_d}) *p = pieces.take<T>(outputs);
    size = 2 * nnz + 2 * outputs + Simd<T>::lanes;
    sums = pieces.take<T>(threads * size * Simd<T>::lanes);
    totals = pieces.take<T>(size);
    moments = pieces.take<double>(threads * (block.taps + block.taps * block.taps));
  }
};

template <class T>
class First {
  using S = Simd<T>;
  static constexpr int lanes = S::lanes;
  static constexpr std::int64_t strip_rows = 6;  // a multiple of every group of rows

 public:
  First(const Chain& chain, FirstMemory<T>& memory, int threads)
      : block_(chain.first), of_(chain.blocks.front()), m_(memory), threads_(threads), nnz_(block_.kept()), outputs_(block_.outputs()) {}

  void prepare(const T* images, std::int64_t count, const FirstImages<T>& to) const {
    pack(images, count, to.planes);
    if (of_.normalises) measure(to, count);
  }

  // Weights and constants with which the convolution gives the normalised output, and its tangent, at once.
  void fold(const FirstImages<T>& of, const T* theta, const T* tangent) const {
    for (std::int64_t o = 0; o < outputs_; ++o) of_.normalises ? fold_normalised(of, theta, tangent, o) : fold_plain(theta, tangent, o);
  }

  // After `fold`, of a group: y and code and, with `dual`, behind y its tangent, in the images of the batch.
  template <bool dual>
  void forward(const FirstImages<T>& from, const Group& group, T* y, std::uint8_t* code) const {
    const auto channels = (dual ? 2 : 1) * outputs_, cells = of_.cells(), tangent = outputs_ * cells;
    over_strips(group, [&](auto rows, std::int64_t n, const Strip& strip, int) {
      for (std::int64_t o = 0; o < outputs_; ++o) {
        const auto at = (n * channels + o) * cells;
        rows.template fetch<1>(strip, y + at + cells), rows.template fetch<1>(strip, code + at + cells);
        if (dual) rows.template fetch<1>(strip, y + at + tangent + cells);
        const FoldedRow<T> row{block_.tap.data() + block_.begin[o], m_.weight + block_.begin[o], kept(o), nnz_, m_.constant[o], dual ? m_.constant_d[o] : T{0}};
        rows.template forward<dual>(from.planes + n * block_.image, strip, row, y + at, y + at + tangent, code + at);
      }
    });
  }

  void clear() const { std::fill_n(m_.sums, threads_ * m_.size * lanes, T{0}); }

  // After `forward` and `clear`, of a group: adds up what the gradient g of y, that of the group's first image at g, correlates
  // with. With `dual` the tangents of g lie ahead of it.
  template <bool dual>
  void correlate(const FirstImages<T>& from, const Group& group, const T* g, const std::uint8_t* code) const {
    const auto channels = (dual ? 2 : 1) * outputs_, cells = of_.cells(), value = (dual ? outputs_ : 0) * cells;
    over_strips(group, [&](auto rows, std::int64_t n, const Strip& strip, int slot) {
      T *sums = m_.sums + slot * m_.size * lanes, *totals = sums + 2 * nnz_ * lanes;
      for (std::int64_t o = 0; o < outputs_; ++o) {
        const auto at = ((n - group.first) * channels + o) * cells;
        const auto* selected = code + (n * channels + o) * cells;
        rows.template fetch<0>(strip, g + at + value + cells), rows.template fetch<0>(strip, selected + cells);
        if (dual) rows.template fetch<0>(strip, g + at + cells);
        rows.template correlate<dual>(from.planes + n * block_.image, strip, block_.tap.data() + block_.begin[o], kept(o), g + at + value, g + at, selected,
                                      sums + block_.begin[o] * lanes, nnz_ * lanes, totals + o * lanes, totals + (outputs_ + o) * lanes);
      }
    });
  }

  // The gradients of weights, bias, gamma and beta from all of that; with a tangent theirs alone.
  void finish(const FirstImages<T>& from, std::int64_t images, const T* theta, const T* tangent, T* grad) const {
    add_lanes(m_.sums, 2 * nnz_ + 2 * outputs_, threads_, m_.size * lanes, m_.totals);
    for (std::int64_t o = 0; o < outputs_; ++o) tangent ? finish_tangent(from, images, theta, tangent, o, grad) : finish(from, theta, o, grad);
  }

 private:
  std::int64_t kept(std::int64_t o) const { return block_.begin[o + 1] - block_.begin[o]; }
  double weight_of(const T* vector, std::int64_t j) const { return static_cast<double>(vector[of_.values + block_.source[j]]); }

  // Pixels less the mean of their channel where that changes nothing but rounding; padding is a pixel too.
  void pack(const T* images, std::int64_t count, T* planes) const {
    const auto [height, width] = block_.shape.input;
    const auto channels = block_.shape.weight[1], phases = block_.step_h * block_.step_w, size = block_.rows * block_.pitch;
    for (std::int64_t c = 0; c < channels; ++c) {
      const T centre = of_.normalises ? average(images + c * height * width, count, channels * height * width, height * width) : T{0};
#pragma omp parallel for num_threads(threads_) schedule(static)
      for (std::int64_t n = 0; n < count; ++n) {
        T* to = planes + n * block_.image + c * phases * size;
        std::fill_n(to, phases * size, -centre);
        for (std::int64_t i = 0; i < height; ++i) {
          const auto row = i + block_.shape.padding[0];
          if (row / block_.step_h >= block_.rows) break;
          T* line = to + row % block_.step_h * block_.step_w * size + row / block_.step_h * block_.pitch;
          const T* pixels = images + ((n * channels + c) * height + i) * width;
          for (std::int64_t f = 0; f < block_.step_w; ++f) {
            const auto first = (f - block_.shape.padding[2] % block_.step_w + block_.step_w) % block_.step_w;
            const auto begin = (first + block_.shape.padding[2]) / block_.step_w;
            T* into = line + (first + block_.shape.padding[2]) % block_.step_w * size + begin;
            const auto n_columns = std::min((width - first + block_.step_w - 1) / block_.step_w, block_.pitch - begin);
            for (std::int64_t j = 0; j < n_columns; ++j) into[j] = pixels[first + j * block_.step_w] - centre;
          }
        }
      }
    }
    std::fill_n(planes + count * block_.image, 64, T{0});
  }

  static T average(const T* plane, std::int64_t count, std::int64_t image, std::int64_t size) {
    double sum = 0;
    for (std::int64_t n = 0; n < count; ++n) {
      T part = 0;
#pragma omp simd reduction(+ : part)
      for (std::int64_t i = 0; i < size; ++i) part += plane[n * image + i];
      sum += static_cast<double>(part);
    }
    return static_cast<T>(sum / static_cast<double>(count * size));
  }

  // Mean and covariance of the taps.
  void measure(const FirstImages<T>& of, std::int64_t images) const {
    const auto taps = block_.taps, size = taps + taps * taps;
    std::fill_n(m_.moments, threads_ * size, 0.0);
    over_parts(images, [&](std::int64_t n, int part) {
      const auto all = (block_.out_height + block_.pool - 1) / block_.pool;
      for (std::int64_t r = 0; r < all; r += strip_rows)
        for (std::int64_t i = 0; i < taps; i += 4)
          for (auto j = i; j < taps; j += 4)
            add_products(of.planes + n * block_.image, {r, std::min(r + strip_rows, all)}, i, j, m_.moments + part * size);
    });
    for (int part = 1; part < threads_; ++part)
      for (std::int64_t i = 0; i < size; ++i) m_.moments[i] += m_.moments[part * size + i];
    const auto positions = static_cast<double>(images * of_.plane());
    for (std::int64_t i = 0; i < taps; ++i) of.mean[i] = m_.moments[i] / positions;
    for (std::int64_t i = 0; i < taps; ++i)
      for (auto j = i; j < taps; ++j)
        of.covariance[i * taps + j] = of.covariance[j * taps + i] = m_.moments[taps + i * taps + j] / positions - of.mean[i] * of.mean[j];
  }

  // Products of taps [i, i + 4) with taps [j, j + 4), and where i == j the sums of the former.
  void add_products(const T* planes, const Strip& strip, std::int64_t i, std::int64_t j, double* moments) const {
    const auto taps = block_.taps, cells = block_.pool * block_.pool;
    typename S::vec product[16] = {}, sum[4] = {};
    for (std::int64_t k = 0; k < cells; ++k) {
      const auto last = std::min(strip.last, (block_.out_height - k / block_.pool + block_.pool - 1) / block_.pool);
      const auto columns = (block_.out_width - k % block_.pool + block_.pool - 1) / block_.pool;
      const T *a[4], *b[4];
      for (std::int64_t t = 0; t < 4; ++t) {
        a[t] = planes + block_.offset[static_cast<std::size_t>(std::min(i + t, taps - 1) * cells + k)];
        b[t] = planes + block_.offset[static_cast<std::size_t>(std::min(j + t, taps - 1) * cells + k)];
      }
      for (auto r = strip.first; r < last; ++r)
        for (std::int64_t q = 0; q < columns; q += lanes) {
          const auto at = r * block_.pitch + q;
          typename S::vec x[4];
          for (int t = 0; t < 4; ++t) x[t] = S::load_masked(a[t] + at, S::first(columns - q)), sum[t] += x[t];
          for (int u = 0; u < 4; ++u) {
            const auto y = S::loadu(b[u] + at);
            for (int t = 0; t < 4; ++t) product[4 * t + u] += x[t] * y;
          }
        }
    }
    for (int t = 0; t < 16; t += lanes) S::sum_lanes(product + t);
    for (std::int64_t t = 0; t < std::min<std::int64_t>(4, taps - i); ++t) {
      if (i == j) moments[i + t] += static_cast<double>(Cells<T, 1>::sum(sum[t]));
      for (std::int64_t u = 0; u < std::min<std::int64_t>(4, taps - j); ++u)
        moments[taps + (i + t) * taps + j + u] += static_cast<double>(product[(4 * t + u) / lanes * lanes][(4 * t + u) % lanes]);
    }
  }

  void fold_plain(const T* theta, const T* tangent, std::int64_t o) const {
    for (std::int64_t j = block_.begin[o]; j < block_.begin[o + 1]; ++j) {
      m_.weight[j] = theta[of_.values + block_.source[j]];
      if (tangent) m_.weight[nnz_ + j] = tangent[of_.values + block_.source[j]];
    }
    m_.constant[o] = of_.biased ? theta[of_.bias + o] : T{0};
    m_.constant_d[o] = tangent && of_.biased ? tangent[of_.bias + o] : T{0};
  }

  void fold_normalised(const FirstImages<T>& of, const T* theta, const T* tangent, std::int64_t o) const {
    double mean = 0, variance = 0;
    for (std::int64_t j = block_.begin[o]; j < block_.begin[o + 1]; ++j) {
      m_.cov[j] = covariance(of, theta, o, j);
      mean += weight_of(theta, j) * of.mean[block_.tap[j]];
      variance += weight_of(theta, j) * m_.cov[j];
    }
    const double rstd = m_.rstd[o] = 1 / std::sqrt(std::max(variance, 0.0) + of_.eps), scale = theta[of_.gamma + o] * rstd;
    for (std::int64_t j = block_.begin[o]; j < block_.begin[o + 1]; ++j) m_.weight[j] = static_cast<T>(scale * weight_of(theta, j));
    m_.constant[o] = static_cast<T>(theta[of_.beta + o] - scale * mean);
    if (!tangent) return;
    double mean_v = 0, mean_vx = 0;
    for (std::int64_t j = block_.begin[o]; j < block_.begin[o + 1]; ++j) {
      m_.cov_d[j] = covariance(of, tangent, o, j);
      mean_v += weight_of(tangent, j) * of.mean[block_.tap[j]];
      mean_vx += rstd * weight_of(tangent, j) * m_.cov[j];
    }
    m_.mean_vx[o] = mean_vx;
    const double by_x = (tangent[of_.gamma + o] - scale * mean_vx) * rstd;
    for (std::int64_t j = block_.begin[o]; j < block_.begin[o + 1]; ++j)
      m_.weight[nnz_ + j] = static_cast<T>(scale * weight_of(tangent, j) + by_x * weight_of(theta, j));
    m_.constant_d[o] = static_cast<T>(tangent[of_.beta + o] - scale * mean_v - by_x * mean);
  }

  // Of what weight j reads with output o under the weights of `vector`.
  double covariance(const FirstImages<T>& of, const T* vector, std::int64_t o, std::int64_t j) const {
    double sum = 0;
    for (std::int64_t i = block_.begin[o]; i < block_.begin[o + 1]; ++i)
      sum += weight_of(vector, i) * of.covariance[block_.tap[j] * block_.taps + block_.tap[i]];
    return sum;
  }

  double total(std::int64_t i) const { return static_cast<double>(m_.totals[i]); }
  // sum_u (x_j - mean of x_j), for u or (`tangent`) its tangent.
  double centred(const FirstImages<T>& of, std::int64_t j, double u, bool tangent) const {
    return total(j + (tangent ? nnz_ : 0)) - (of_.normalises ? u * of.mean[block_.tap[j]] : 0.0);
  }

  void finish(const FirstImages<T>& of, const T* theta, std::int64_t o, T* grad) const {
    const double u = total(2 * nnz_ + o), scale = of_.normalises ? theta[of_.gamma + o] * m_.rstd[o] : 1.0;
    double ux = 0;
    for (std::int64_t j = block_.begin[o]; j < block_.begin[o + 1]; ++j) {
      const double r = centred(of, j, u, false);
      if (of_.normalises) ux += m_.rstd[o] * weight_of(theta, j) * r;
      grad[of_.values + block_.source[j]] = static_cast<T>(scale * r);
    }
    store_norm_grads(of_, o, ux, u, grad);
    if (!of_.normalises) return;
    for (std::int64_t j = block_.begin[o]; j < block_.begin[o + 1]; ++j)
      grad[of_.values + block_.source[j]] -= static_cast<T>(scale * m_.rstd[o] * ux * m_.cov[j]);
  }

  void finish_tangent(const FirstImages<T>& of, std::int64_t images, const T* theta, const T* tangent, std::int64_t o, T* grad) const {
    const double u = total(2 * nnz_ + o), du = total(2 * nnz_ + outputs_ + o);
    const auto begin = block_.begin[o], end = block_.begin[o + 1];
    if (!of_.normalises) {
      for (auto j = begin; j < end; ++j) grad[of_.values + block_.source[j]] = static_cast<T>(centred(of, j, du, true));
      return store_norm_grads(of_, o, 0, du, grad);
    }
    const double rstd = m_.rstd[o], scale = theta[of_.gamma + o] * rstd, k = scale * rstd, d_gamma = tangent[of_.gamma + o], mvx = m_.mean_vx[o];
    double ux = 0, dux = 0, uv = 0;  // with x normalised, and the tangent of the output less its mean
    for (auto j = begin; j < end; ++j) {
      ux += rstd * weight_of(theta, j) * centred(of, j, u, false);
      dux += rstd * weight_of(theta, j) * centred(of, j, du, true);
      uv += weight_of(tangent, j) * centred(of, j, u, false);
    }
    const double inner = uv - mvx * ux, m = static_cast<double>(images * of_.plane()), mux = ux / m;
    const double by_x = (k * (2 * mvx * mux - inner / m) - d_gamma * rstd * mux - scale * dux / m) * rstd;
    for (auto j = begin; j < end; ++j)
      grad[of_.values + block_.source[j]] = static_cast<T>(m * (by_x * m_.cov[j] - k * mux * m_.cov_d[j]) + (d_gamma * rstd - k * mvx) * centred(of, j, u, false) +
                                                           scale * centred(of, j, du, true));
    store_norm_grads(of_, o, dux + rstd * inner, du, grad);
  }

  // Calls f(image, part): neighbouring images, the same for the same number of threads.
  template <class F>
  void over_parts(std::int64_t images, F f) const {
#pragma omp parallel for num_threads(threads_) schedule(static, 1)
    for (int part = 0; part < threads_; ++part)
      for (auto n = images * part / threads_; n < images * (part + 1) / threads_; ++n) f(n, part);
  }
  // Calls f(rows, image, strip, slot) for the strips of the images of a group.
  template <class F>
  void over_strips(const Group& group, F f) const {
    const auto with = [&](auto rows) {
      over_images(group, (rows.height() + strip_rows - 1) / strip_rows, true, [&](std::int64_t n, std::int64_t i, int slot) {
        f(rows, n, Strip{i * strip_rows, std::min((i + 1) * strip_rows, rows.height())}, slot);
      });
    };
    const auto slope = static_cast<T>(of_.slope);
    block_.pool == 2 ? with(FirstRows<T, 2>{block_, slope}) : with(FirstRows<T, 1>{block_, slope});
  }

  const FirstBlock& block_;
  const ChainBlock& of_;
  FirstMemory<T>& m_;
  int threads_;
  std::int64_t nnz_, outputs_;
};

}  // namespace sparsemeta::SPARSEMETA_ISA
