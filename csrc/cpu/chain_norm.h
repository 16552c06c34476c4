// Batch norm, activation and pooling of a chain's block, plane by plane, with the tangents of both passes. Formulas: ../README.md.
#pragma once

#include <cmath>

#include "chain_memory.h"

namespace sparsemeta::SPARSEMETA_ISA {

template <class T, int P, bool dual>
class ChainNorm {
  using S = Simd<T>;
  using C = Cells<T, P>;
  using vec = typename S::vec;
  static constexpr int lanes = S::lanes;

 public:
  // `images`: of the batch.
  ChainNorm(const ChainBlock& block, const BlockMemory<T>& memory, const T* theta, const T* tangent, std::int64_t images)
      : block_(block), m_(memory), theta_(theta), tangent_(tangent), images_(images), channels_(block.channels()),
        shape_{1, 1, block.conv->y.height, block.conv->y.width, P, block.eps, block.slope, sizeof(T) == 8, 1} {}
  ChainNorm(const ChainNorm&) = delete;

  // From the convolution's output while it is in cache: a plane's sums, and the elements that the pooling selects. A positive
  // factor does not change which is the largest, a negative one makes it the smallest: the statistics may come later.
  void gather(std::int64_t n, std::int64_t c) const {
    const T *y = of(m_.y, n, c, size()), *v = y + channels_ * size();
    if (block_.normalises) m_.planes[n * channels_ + c] = sums(y, v);
    const T weight = gamma(c);
    const auto sign = S::broadcast(static_cast<T>((weight > 0) - (weight < 0)));
    T *x = of(m_.selected, n, c, cells()), *x_d = x + channels_ * cells();
    auto* code = of(m_.code, n, c, cells());
    for_cells(plane(), [&](std::int64_t first, std::int64_t cell, std::int64_t k) {
      vec e[P * P], ordered[P * P];
      C::load(y + first, shape_.width, k, e);
      for (int i = 0; i < P * P; ++i) ordered[i] = e[i] * sign;
      const auto chosen = C::choose(ordered);
      S::store_masked(x + cell, C::pick(e, chosen), S::first(k));
      C::store_code(code + cell, chosen, k);
      if constexpr (dual) {
        C::load(v + first, shape_.width, k, e);
        S::store_masked(x_d + cell, C::pick(e, chosen), S::first(k));
      }
    });
  }

  // Of all images of the batch, after `gather`: mean and deviation of y, means of its tangent alone and times the normalised y.
  void statistics() const {
    for (std::int64_t c = 0; c < channels_; ++c) {
      double mean = 0, squares = 0, v = 0, vx = 0;
      for (std::int64_t n = 0; block_.normalises && n < images_; ++n) mean += planes(n, c).mean / static_cast<double>(images_);
      for (std::int64_t n = 0; block_.normalises && n < images_; ++n) {
        const double apart = planes(n, c).mean - mean;
        squares += planes(n, c).squares + static_cast<double>(size()) * apart * apart;
        v += planes(n, c).v;
        vx += planes(n, c).vx + apart * planes(n, c).v;
      }
      const double rstd = block_.normalises ? 1 / std::sqrt(squares / count() + block_.eps) : 1;
      m_.statistics[c] = {static_cast<T>(mean), static_cast<T>(rstd), static_cast<T>(v / count()), static_cast<T>(rstd * vx / count())};
    }
  }

  // The block's output from the selected elements, once the statistics are known.
  void activate(std::int64_t n, std::int64_t c) const {
    const auto [mean, rstd, mean_v, mean_vx] = m_.statistics[c];
    const T scale = gamma(c) * rstd, by_x = (d_gamma(c) - scale * mean_vx) * rstd;
    const auto shift = S::broadcast(beta(c) - scale * mean), rest = S::broadcast(d_beta(c) - scale * mean_v - by_x * mean);
    const auto slope = S::broadcast(static_cast<T>(block_.slope));
    const T *x = of(m_.selected, n, c, cells()), *x_d = x + channels_ * cells();
    T *a = of(m_.a, n, c, cells()), *a_d = a + channels_ * cells();
    auto* code = of(m_.code, n, c, cells());
    for (std::int64_t i = 0; i < cells(); i += lanes) {
      const auto k = cells() - i;
      const auto mask = S::first(k);
      const vec e = S::load_masked(x + i, mask), z = e * S::broadcast(scale) + shift;
      const auto cut = z <= 0;
      S::store_masked(a + i, cut ? (block_.slope == 0 ? S::zero() : z * slope) : z, mask);
      const auto chosen = C::load_code(code + i, k) & 3;
      C::store_code(code + i, cut ? chosen : chosen + passes, k);
      if constexpr (dual) {
        const auto z_d = S::load_masked(x_d + i, mask) * S::broadcast(scale) + e * S::broadcast(by_x) + rest;
        S::store_masked(a_d + i, cut ? z_d * slope : z_d, mask);
      }
    }
  }

  // From the gradient g of an image's output, tangents ahead of values: sums over a plane, lane by lane, of what reaches
  // the selected elements, u; of u times x less its mean; with tangents also of u v, du, and du times x less its mean.
  void add_sums(std::int64_t n, std::int64_t c, const T* g, T* sums) const {
    const T *from = value(g, c, cells()), *from_d = g + c * cells();
    const T *x = of(m_.selected, n, c, cells()), *x_d = x + channels_ * cells();
    const auto* code = of(m_.code, n, c, cells());
    const auto mean = S::broadcast(m_.statistics[c].mean), slope = S::broadcast(static_cast<T>(block_.slope));
    vec sum[block_sums];
    for (int i = 0; i < (dual ? block_sums : 2); ++i) sum[i] = S::load(sums + (c * block_sums + i) * lanes);
    for (std::int64_t i = 0; i < cells(); i += lanes) {
      const auto k = cells() - i;
      const auto selected = C::load_code(code + i, k);
      const auto u = C::gradient(from + i, selected, slope, k), centred = S::load_masked(x + i, S::first(k)) - mean;
      sum[0] += u;
      sum[1] += u * centred;
      if constexpr (dual) {
        const auto du = C::gradient(from_d + i, selected, slope, k);
        sum[2] += u * S::load_masked(x_d + i, S::first(k));
        sum[3] += du;
        sum[4] += du * centred;
      }
    }
    for (int i = 0; i < (dual ? block_sums : 2); ++i) S::store(sums + (c * block_sums + i) * lanes, sum[i]);
  }

  // From the totals of those sums: gradients of gamma and beta, or their tangents, and what `combine` takes.
  void finish(const T* totals, T* grad) const {
    for (std::int64_t c = 0; c < channels_; ++c) {
      const auto [mean, rstd, mv, mvx] = m_.statistics[c];
      const T *sum = totals + c * block_sums, per = block_.normalises ? static_cast<T>(1 / count()) : T{0};
      const T u = sum[0], ux = sum[1] * rstd, uv = sum[2], du = sum[3], dux = sum[4] * rstd;
      const T scale = gamma(c) * rstd, k = scale * rstd, mu = u * per, mux = ux * per;
      auto& [value, tangent] = m_.combinations[c];
      value = {}, tangent = {};
      value.u = tangent.du = scale;
      value.x = -scale * mux * rstd;
      value.constant = -scale * mu - value.x * mean;
      if constexpr (!dual) {
        store_norm_grads(block_, c, ux, u, grad);
        continue;
      }
      const T inner = uv - static_cast<T>(count()) * (mv * mu + mvx * mux);
      tangent.u = d_gamma(c) * rstd - k * mvx;
      tangent.v = -k * mux;
      tangent.x = (k * (2 * mvx * mux - inner * per) - d_gamma(c) * rstd * mux - scale * dux * per) * rstd;
      tangent.constant = k * (mv * mux + mu * mvx) - d_gamma(c) * rstd * mu - scale * du * per - tangent.x * mean;
      store_norm_grads(block_, c, dux + rstd * inner, du, grad);
    }
  }

  // The gradient of y for an image, tangents ahead of values, from that of its output.
  void combine(std::int64_t n, std::int64_t c, const T* g, T* grad_y) const {
    const T *from = value(g, c, cells()), *from_d = g + c * cells();
    const T *y = of(m_.y, n, c, size()), *v = y + channels_ * size();
    T *out = value(grad_y, c, size()), *out_d = grad_y + c * size();
    const auto* code = of(m_.code, n, c, cells());
    const auto& [p, q] = m_.combinations[c];
    const auto slope = S::broadcast(static_cast<T>(block_.slope));
    for_cells(plane(), [&](std::int64_t first, std::int64_t cell, std::int64_t k) {
      const auto selected = C::load_code(code + cell, k);
      const auto u = C::gradient(from + cell, selected, slope, k), to_value = S::broadcast(p.u) * u;
      vec e[P * P], w[dual ? P * P : 1], to_tangent;
      C::load(y + first, shape_.width, k, e);
      if constexpr (dual) {
        C::load(v + first, shape_.width, k, w);
        to_tangent = S::broadcast(q.u) * u + S::broadcast(q.du) * C::gradient(from_d + cell, selected, slope, k);
      }
      for (int i = 0; i < P * P; ++i) {
        const auto here = (selected & 3) == i;
        if constexpr (dual) w[i] = S::broadcast(q.constant) + S::broadcast(q.x) * e[i] + S::broadcast(q.v) * w[i] + (here ? to_tangent : S::zero());
        e[i] = S::broadcast(p.constant) + S::broadcast(p.x) * e[i] + (here ? to_value : S::zero());
      }
      C::store(out + first, shape_.width, k, e);
      if constexpr (dual) C::store(out_d + first, shape_.width, k, w);
    });
    for_uncovered(plane(), [&](std::int64_t i) {
      if constexpr (dual) out_d[i] = q.constant + q.x * y[i] + q.v * v[i];
      out[i] = p.constant + p.x * y[i];
    });
  }

 private:
  // Of a plane, about its own mean.
  PlaneSums sums(const T* y, const T* v) const {
    auto sum = S::zero(), squares = S::zero(), sum_v = S::zero(), vx = S::zero();
    for (std::int64_t i = 0; i < size(); i += lanes) sum += S::load_masked(y + i, S::first(size() - i));
    const double mean = static_cast<double>(C::sum(sum)) / static_cast<double>(size());
    const auto about = S::broadcast(static_cast<T>(mean));
    const auto add = [&](std::int64_t i, vec x) {
      squares += x * x;
      if constexpr (dual) {
        const auto here = S::load_masked(v + i, S::first(size() - i));
        sum_v += here;
        vx += here * x;
      }
    };
    const auto whole = size() / lanes * lanes;
    for (std::int64_t i = 0; i < whole; i += lanes) add(i, S::loadu(y + i) - about);
    if (const auto rest = S::first(size() - whole)) {  // where nothing is, nothing is apart from the mean
      T filled[lanes];
      S::storeu(filled, about);
      add(whole, S::load_masked(y + whole, rest) - S::load_masked(filled, rest));
    }
    return {mean, static_cast<double>(C::sum(squares)), static_cast<double>(C::sum(sum_v)), static_cast<double>(C::sum(vx))};
  }

  std::int64_t size() const { return block_.plane(); }
  std::int64_t cells() const { return block_.cells(); }
  double count() const { return static_cast<double>(images_ * size()); }
  Channel<T, P> plane() const { return {shape_, 0}; }
  const PlaneSums& planes(std::int64_t n, std::int64_t c) const { return m_.planes[n * channels_ + c]; }
  // Planes of the value: values ahead of tangents in what goes forward, behind them in one image of what comes back.
  template <class E>
  E* of(E* images, std::int64_t n, std::int64_t c, std::int64_t size) const { return images + (n * (dual ? 2 : 1) * channels_ + c) * size; }
  template <class E>
  E* value(E* image, std::int64_t c, std::int64_t size) const { return image + ((dual ? channels_ : 0) + c) * size; }

  T gamma(std::int64_t c) const { return block_.normalises ? theta_[block_.gamma + c] : T{1}; }
  T beta(std::int64_t c) const { return block_.normalises ? theta_[block_.beta + c] : T{0}; }
  T d_gamma(std::int64_t c) const { return dual && block_.normalises ? tangent_[block_.gamma + c] : T{0}; }
  T d_beta(std::int64_t c) const { return dual && block_.normalises ? tangent_[block_.beta + c] : T{0}; }

  const ChainBlock& block_;
  const BlockMemory<T>& m_;
  const T *theta_, *tangent_;
  std::int64_t images_, channels_;
  NormShape shape_;
};

}  // namespace sparsemeta::SPARSEMETA_ISA
