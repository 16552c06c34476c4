// One batch through a chain and back, with or without tangents. See ../README.md, "A chain of blocks".
#pragma once

#include <type_traits>

#include "chain_head.h"
#include "chain_norm.h"

namespace sparsemeta::SPARSEMETA_ISA {

template <class T>
std::uintptr_t address(T* p) { return reinterpret_cast<std::uintptr_t>(p); }

template <class T>
struct Batch {
  const T* images;
  const std::int64_t* labels;
  std::int64_t count;
  const FirstImages<T>& packed;
};

// What a batch is differentiated at and, in the direction `tangent`, once more; null where it is not.
template <class T>
struct Point {
  const T *theta, *tangent;

  std::int64_t copies() const { return tangent ? 2 : 1; }
};

template <class T>
class Passes {
 public:
  Passes(const Chain& chain, ChainMemory<T>& memory, int threads) : chain_(chain), m_(memory), threads_(threads), first_(chain, memory.first, threads) {}

  // What of a batch is the same in every pass.
  void prepare(const Batch<T>& batch) const {
    if (chain_.first.fits()) first_.prepare(batch.images, batch.count, batch.packed);
  }

  // Logits of a batch, in memory.logits, and their tangents.
  void forward(const Batch<T>& batch, const Point<T>& at) {
    const std::size_t blocks = chain_.blocks.size();
    if (is_first(0)) first_.fold(batch.packed, at.theta, at.tangent);
    for (std::size_t l = is_first(0) ? 1 : 0; l < blocks; ++l) {
      const T *weights = conv_values(l, at), *bias = conv_bias(l, at);
      groups(l, batch, at).each([&](const Group& group) {
        if (l) leave(l - 1, batch, at, group);
        convolve(l, batch, at, weights, bias, group);
        over_planes(l, batch, at, group, [](const auto& norm, auto n, auto c, int) { norm.gather(n, c); });
      });
      with_norm(l, batch, at, [](const auto& norm) { norm.statistics(); });
    }
    groups(blocks - 1, batch, at).each([&](const Group& group) { leave(blocks - 1, batch, at, group); });
    head_forward(batch, at);
  }

  // Loss and accuracy of those logits, which become the loss's gradient.
  void loss(const Batch<T>& batch, double (&result)[2]) const { of_head(batch, {}).loss(batch.labels, m_.logits, result); }

  // From the loss's gradient to that of the parameters or, with a tangent, to the tangent of that. After `forward` and `loss`.
  void backward(const Batch<T>& batch, const Point<T>& at, T* grad) {
    head_backward(batch, at, grad);
    auto l = chain_.blocks.size() - 1;
    clear_sums(l);
    groups(l, batch, at).each([&](const Group& group) { enter(l, batch, at, group, grad_a(l) + group.first * at.copies() * pooled(l)); });
    if (is_first(l)) return first_.finish(batch.packed, batch.count, at.theta, at.tangent, grad);
    for (;; --l) {
      add_lanes(m_.sums, chain_.blocks[l].channels() * block_sums, threads_, sums_of_thread(), m_.totals);
      with_norm(l, batch, at, [&](const auto& norm) { norm.finish(m_.totals, grad); });
      if (l) clear_sums(l - 1);
      through_convolution(l, batch, at, grad);
      if (l == 0) return;
      if (is_first(l - 1)) return first_.finish(batch.packed, batch.count, at.theta, at.tangent, grad);
    }
  }

 private:
  bool is_first(std::size_t l) const { return l == 0 && chain_.first.fits(); }
  std::int64_t pooled(std::size_t l) const { return chain_.blocks[l].channels() * chain_.blocks[l].cells(); }
  T* grad_a(std::size_t l) const { return m_.grad_a[l % 2]; }
  Groups groups(std::size_t l, const Batch<T>& batch, const Point<T>& at) const { return chain_groups<T>(chain_, l, batch.count, at.copies(), threads_); }
  Work work(const Group& group) const { return {1, group.count, chain_.f64, group.threads}; }

  // `images` of `plane`, of which the rest of the image (a tangent, or a value) may lie between two.
  View view(const T* images, const Plane& plane, std::int64_t channels) const {
    return {address(images), 0, channels * plane.height * plane.width, plane.height * plane.width, plane.width, 1};
  }

  template <class F>
  void with_norm(std::size_t l, const Batch<T>& batch, const Point<T>& at, F f) const {
    const auto with = [&](auto pool, auto dual) { f(ChainNorm<T, pool, dual>(chain_.blocks[l], m_.blocks[l], at.theta, at.tangent, batch.count)); };
    const auto pooled = [&](auto pool) { at.tangent ? with(pool, std::true_type{}) : with(pool, std::false_type{}); };
    chain_.blocks[l].pool == 2 ? pooled(std::integral_constant<int, 2>{}) : pooled(std::integral_constant<int, 1>{});
  }

  template <class F>
  void over_planes(std::size_t l, const Batch<T>& batch, const Point<T>& at, const Group& group, F f) const {
    const auto& block = chain_.blocks[l];
    const bool large = group.count * block.channels() * block.plane() > 32768;
    with_norm(l, batch, at, [&](const auto& norm) {
      over_images(group, block.channels(), large, [&](std::int64_t n, std::int64_t c, int slot) { f(norm, n, c, slot); });
    });
  }

  // The output of block l, once its statistics are known.
  void leave(std::size_t l, const Batch<T>& batch, const Point<T>& at, const Group& group) const {
    const auto& of = m_.blocks[l];
    if (!is_first(l)) over_planes(l, batch, at, group, [](const auto& norm, auto n, auto c, int) { norm.activate(n, c); });
    else if (at.tangent) first_.template forward<true>(batch.packed, group, of.a, of.code);
    else first_.template forward<false>(batch.packed, group, of.a, of.code);
  }

  // The sums that the way back through block l needs, from the gradient g of its output, where the group's images begin.
  void enter(std::size_t l, const Batch<T>& batch, const Point<T>& at, const Group& group, const T* g) const {
    if (!is_first(l))
      over_planes(l, batch, at, group, [&](const auto& norm, auto n, auto c, int slot) {
        norm.add_sums(n, c, g + (n - group.first) * at.copies() * pooled(l), m_.sums + slot * sums_of_thread());
      });
    else if (at.tangent) first_.template correlate<true>(batch.packed, group, g, m_.blocks[l].code);
    else first_.template correlate<false>(batch.packed, group, g, m_.blocks[l].code);
  }

  std::int64_t sums_of_thread() const { return m_.all_sums * Simd<T>::lanes; }
  void clear_sums(std::size_t l) const { is_first(l) ? first_.clear() : void(std::fill_n(m_.sums, threads_ * sums_of_thread(), T{0})); }

  const ConvPlan& plan(std::size_t l, const Point<T>& at) const { return at.tangent ? *chain_.blocks[l].dual : *chain_.blocks[l].conv; }

  // Of the weight or, with a tangent, of [[w, 0], [dw, w]], in the order of its index.
  const T* conv_values(std::size_t l, const Point<T>& at) const {
    const auto& block = chain_.blocks[l];
    const auto n = block.conv->nnz;
    if (!at.tangent) return at.theta + block.values;
    std::copy_n(at.theta + block.values, n, m_.values);
    std::copy_n(at.tangent + block.values, n, m_.values + n);
    if (l) std::copy_n(at.theta + block.values, n, m_.values + 2 * n);
    return m_.values;
  }

  const T* conv_bias(std::size_t l, const Point<T>& at) const {
    const auto& block = chain_.blocks[l];
    if (!block.biased || !at.tangent) return block.biased ? at.theta + block.bias : nullptr;
    std::copy_n(at.theta + block.bias, block.channels(), m_.bias);
    std::copy_n(at.tangent + block.bias, block.channels(), m_.bias + block.channels());
    return m_.bias;
  }

  // Where the input of block l begins for a group, and the elements from image to image.
  std::pair<const T*, std::int64_t> input(std::size_t l, const Batch<T>& batch, const Point<T>& at, const Group& group) const {
    const auto& x = chain_.blocks[l].conv->x;
    const auto image = (l ? at.copies() : 1) * x.channels * x.height * x.width;
    return {(l ? m_.blocks[l - 1].a : batch.images) + group.first * image, image};
  }

  void convolve(std::size_t l, const Batch<T>& batch, const Point<T>& at, const T* values, const T* bias, const Group& group) const {
    const auto& p = plan(l, at);
    T* y = m_.blocks[l].y + group.first * p.y.channels * p.y.height * p.y.width;
    masked_conv2d(p, view(input(l, batch, at, group).first, p.x, p.x.channels), {address(values), 0}, {address(bias), 0}, view(y, p.y, p.y.channels), work(group));
  }

  // From the gradient of block l's output and its sums to those of its weights and, through the block before, on to its sums.
  void through_convolution(std::size_t l, const Batch<T>& batch, const Point<T>& at, T* grad) const {
    const auto& block = chain_.blocks[l];
    const auto& p = plan(l, at);
    const auto values = conv_values(l, at);
    const auto all = groups(l, batch, at);
    const auto image = at.copies() * block.channels() * block.plane(), before = l ? at.copies() * pooled(l - 1) : 0;
    for (int thread = 0; thread < threads_; ++thread) std::fill_n(m_.weight_grads + thread * 2 * m_.kept, block.conv->nnz, T{0});
    all.each([&](const Group& group) {
      T* grad_y = m_.grad_y + group.slot * all.largest() * image;
      over_planes(l, batch, at, group, [&](const auto& norm, auto n, auto c, int) {
        norm.combine(n, c, grad_a(l) + n * at.copies() * pooled(l), grad_y + (n - group.first) * image);
      });
      add_weight_grad(l, batch, at, group, grad_y);
      if (!l) return;
      T* g = is_first(l - 1) ? m_.grad_first + group.slot * all.largest() * before : grad_a(l - 1) + group.first * before;
      masked_conv2d_input_grad(p, view(grad_y, p.y, p.y.channels), {address(values), 0}, view(g, p.x, p.x.channels), work(group));
      enter(l - 1, batch, at, group, g);
    });
    std::fill_n(grad + block.values, block.conv->nnz, T{0});
    for (int thread = 0; thread < threads_; ++thread) add(m_.weight_grads + thread * 2 * m_.kept, block.conv->nnz, grad + block.values);
  }

  // To the thread's sum: <g, x>, or with a tangent <dg, x> + <g, dx>, which is one product over twice as many images: dg lies
  // ahead of g, and dx behind x.
  void add_weight_grad(std::size_t l, const Batch<T>& batch, const Point<T>& at, const Group& group, const T* grad_y) const {
    const auto& p = *chain_.blocks[l].conv;
    const T* x = input(l, batch, at, group).first;
    const auto copies = l ? at.copies() : 1;
    T *sum = m_.weight_grads + group.slot * 2 * m_.kept, *next = sum + m_.kept;
    masked_conv2d_weight_grad(p, view(grad_y, p.y, at.copies() / copies * p.y.channels), view(x, p.x, p.x.channels), {address(next), 0},
                              {1, copies * group.count, chain_.f64, group.threads});
    add(next, p.nnz, sum);
  }

  static void add(const T* from, std::int64_t n, T* to) {
    for (std::int64_t i = 0; i < n; ++i) to[i] += from[i];
  }

  Head<T> of_head(const Batch<T>& batch, const Point<T>& at) const { return {chain_.head, batch.count, at.copies() * chain_.head.features}; }

  void head_forward(const Batch<T>& batch, const Point<T>& at) const {
    const auto head = of_head(batch, at);
    const auto& linear = chain_.head;
    const T* a = m_.blocks.back().a;
    head.expand(at.theta + linear.values, m_.head);
    head.multiply(a, m_.head, linear.biased ? at.theta + linear.bias : nullptr, false, m_.logits);
    if (!at.tangent) return;
    head.expand(at.tangent + linear.values, m_.head_d);
    head.multiply(a, m_.head_d, linear.biased ? at.tangent + linear.bias : nullptr, false, m_.logits_d);
    head.multiply(a + linear.features, m_.head, nullptr, true, m_.logits_d);
  }

  void head_backward(const Batch<T>& batch, const Point<T>& at, T* grad) const {
    const auto head = of_head(batch, at);
    const auto& linear = chain_.head;
    const T* a = m_.blocks.back().a;
    T *to = grad_a(chain_.blocks.size() - 1), *value = to + (at.tangent ? linear.features : 0);
    if (at.tangent) head.loss_tangent(batch.labels, m_.logits, m_.logits_d);
    const T* g = at.tangent ? m_.logits_d : m_.logits;
    std::fill_n(m_.grad_head, linear.ways * linear.features, T{0});
    head.weight_grad(g, a, m_.grad_head);
    if (at.tangent) head.weight_grad(m_.logits, a + linear.features, m_.grad_head);
    head.compress(m_.grad_head, grad + linear.values);
    head.bias_grad(g, grad + linear.bias);
    head.input_grad(m_.logits, m_.head, false, value);
    if (!at.tangent) return;
    head.input_grad(m_.logits_d, m_.head, false, to);
    head.input_grad(m_.logits, m_.head_d, true, to);
  }

  const Chain& chain_;
  ChainMemory<T>& m_;
  int threads_;
  First<T> first_;
};

}  // namespace sparsemeta::SPARSEMETA_ISA
