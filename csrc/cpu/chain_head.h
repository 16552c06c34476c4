// The linear head and the cross-entropy, with tangents. Small: plain loops over contiguous features.
#pragma once

#include <algorithm>
#include <cmath>

#include "../chain.h"

namespace sparsemeta::SPARSEMETA_ISA {

template <class T>
struct Head {
  const ChainHead& shape;
  std::int64_t images, row;  // elements between the features of neighbouring images

  void expand(const T* values, T* weight) const {
    std::fill_n(weight, shape.ways * shape.features, T{0});
    for (std::int64_t j = 0; j < shape.kept(); ++j) weight[shape.index[j]] = values[j];
  }
  void compress(const T* weight, T* values) const {
    for (std::int64_t j = 0; j < shape.kept(); ++j) values[j] = weight[shape.index[j]];
  }

  // out[n, o] (+)= <a[n], weight[o]> + bias[o]
  void multiply(const T* a, const T* weight, const T* bias, bool add, T* out) const {
    for (std::int64_t n = 0; n < images; ++n)
      for (std::int64_t o = 0; o < shape.ways; ++o) {
        const T *x = a + n * row, *w = weight + o * shape.features;
        T sum = 0;
#pragma omp simd reduction(+ : sum)
        for (std::int64_t i = 0; i < shape.features; ++i) sum += x[i] * w[i];
        out[n * shape.ways + o] = sum + (bias ? bias[o] : T{0}) + (add ? out[n * shape.ways + o] : T{0});
      }
  }
  // grad[n] (+)= sum_o g[n, o] weight[o]
  void input_grad(const T* g, const T* weight, bool add, T* grad) const {
    for (std::int64_t n = 0; n < images; ++n) {
      T* to = grad + n * row;
      if (!add) std::fill_n(to, shape.features, T{0});
      for (std::int64_t o = 0; o < shape.ways; ++o) accumulate(g[n * shape.ways + o], weight + o * shape.features, to);
    }
  }
  // grad[o] += sum_n g[n, o] a[n]
  void weight_grad(const T* g, const T* a, T* grad) const {
    for (std::int64_t n = 0; n < images; ++n)
      for (std::int64_t o = 0; o < shape.ways; ++o) accumulate(g[n * shape.ways + o], a + n * row, grad + o * shape.features);
  }
  void bias_grad(const T* g, T* grad) const {
    if (!shape.biased) return;
    std::fill_n(grad, shape.ways, T{0});
    for (std::int64_t n = 0; n < images; ++n)
      for (std::int64_t o = 0; o < shape.ways; ++o) grad[o] += g[n * shape.ways + o];
  }

  // Mean cross-entropy and share of right answers; logits become the gradient of the former.
  void loss(const std::int64_t* labels, T* logits, double (&result)[2]) const {
    double total = 0, right = 0;
    for (std::int64_t n = 0; n < images; ++n) {
      T* p = logits + n * shape.ways;
      const auto best = std::max_element(p, p + shape.ways) - p;
      const T most = p[best], target = p[labels[n]];
      T sum = 0;
      for (std::int64_t o = 0; o < shape.ways; ++o) sum += p[o] = std::exp(p[o] - most);
      total += static_cast<double>(std::log(sum) + most - target);
      right += best == labels[n];
      for (std::int64_t o = 0; o < shape.ways; ++o) p[o] = (p[o] / sum - (o == labels[n] ? 1 : 0)) / static_cast<T>(images);
    }
    result[0] = total / static_cast<double>(images);
    result[1] = right / static_cast<double>(images);
  }

  // The tangent of that gradient g from the tangent of the logits: (diag(p) - p p^T) dlogits / images, in its place.
  void loss_tangent(const std::int64_t* labels, const T* g, T* tangent) const {
    for (std::int64_t n = 0; n < images; ++n) {
      const T* of = g + n * shape.ways;
      T* d = tangent + n * shape.ways;
      const auto p = [&](std::int64_t o) { return of[o] * static_cast<T>(images) + (o == labels[n] ? 1 : 0); };
      T mean = 0;
      for (std::int64_t o = 0; o < shape.ways; ++o) mean += p(o) * d[o];
      for (std::int64_t o = 0; o < shape.ways; ++o) d[o] = p(o) * (d[o] - mean) / static_cast<T>(images);
    }
  }

 private:
  void accumulate(T factor, const T* from, T* to) const {
    for (std::int64_t i = 0; i < shape.features; ++i) to[i] += factor * from[i];
  }
};

}  // namespace sparsemeta::SPARSEMETA_ISA
