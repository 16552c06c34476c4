// The inner loop of MAML and its meta-gradient on a chain of blocks, as one call. See ../README.md, "A chain of blocks".
#include "../chain.h"

#include <omp.h>

#include <tuple>
#include <utility>

#include "chain_head.h"
#include "chain_memory.h"
#include "chain_norm.h"

namespace sparsemeta::SPARSEMETA_ISA {
namespace {

template <class T>
std::uintptr_t address(T* p) { return reinterpret_cast<std::uintptr_t>(p); }

template <class T>
struct Batch {
  const T* images;
  const std::int64_t* labels;
  std::int64_t count;
  const FirstImages<T>& packed;
};

// Contiguous images of `plane`, of which the rest of the image (a tangent, or a value) may lie between two.
template <class T>
View view(const T* data, const Plane& plane, std::int64_t channels) {
  return {address(data), 0, channels * plane.height * plane.width, plane.height * plane.width, plane.width, 1};
}

// Value, or value and tangent, of one batch through the chain and back.
template <class T>
class Passes {
 public:
  Passes(const Chain& chain, ChainMemory<T>& memory, int threads) : chain_(chain), m_(memory), threads_(threads), first_(chain, memory.first, threads) {}

  // What of a batch is the same in every pass.
  void prepare(const Batch<T>& batch) const {
    if (chain_.first.fits()) first_.prepare(batch.images, batch.count, batch.packed);
  }

  // Logits of a batch under theta, in memory.logits.
  void forward(const Batch<T>& batch, const T* theta) {
    for (std::size_t l = 0; l < chain_.blocks.size(); ++l) {
      const auto& block = chain_.blocks[l];
      if (!l && chain_.first.fits()) {
        first_.forward(batch.packed, batch.count, theta, nullptr, block.channels(), m_.blocks[l].a, nullptr, m_.blocks[l].code);
        continue;
      }
      const T* x = l ? m_.blocks[l - 1].a : batch.images;
      masked_conv2d(*block.conv, view(x, block.conv->x, block.conv->x.channels), {address(theta + block.values), 0},
                    {block.biased ? address(theta + block.bias) : 0, 0}, view(m_.blocks[l].y, block.conv->y, block.channels()), work(batch.count));
      for_channels(block, batch.count, 1, [&](const auto& ch) { sparsemeta::SPARSEMETA_ISA::forward(ch, tensors(l, theta)); });
    }
    const auto head = of_head(batch.count, 1);
    head.expand(theta + chain_.head.values, m_.head);
    head.multiply(m_.blocks.back().a, m_.head, chain_.head.biased ? theta + chain_.head.bias : nullptr, false, m_.logits);
  }

  // Loss and accuracy of those logits, which become the loss's gradient.
  void head_loss(const Batch<T>& batch, double (&result)[2]) const {
    of_head(batch.count, 1).loss(batch.labels, m_.logits, result);
  }

  // From the loss's gradient in the logits to `grad`, after `forward` on the same batch.
  void backward(const Batch<T>& batch, const T* theta, T* grad) {
    const auto& linear = chain_.head;
    const auto head = of_head(batch.count, 1);
    std::fill_n(m_.grad_head, linear.ways * linear.features, T{0});
    head.weight_grad(m_.logits, m_.blocks.back().a, m_.grad_head);
    head.compress(m_.grad_head, grad + linear.values);
    head.bias_grad(m_.logits, grad + linear.bias);
    head.input_grad(m_.logits, m_.head, false, grad_a(chain_.blocks.size() - 1));
    for (auto l = chain_.blocks.size(); l-- > 0;) {
      const auto& block = chain_.blocks[l];
      if (!l && chain_.first.fits())
        return first_.backward(batch.packed, batch.count, theta, nullptr, block.channels(), grad_a(l), grad_a(l), m_.blocks[l].code, grad);
      auto t = tensors(l, theta);
      std::tie(t.grad_weight, t.grad_bias) = norm_grads(block, grad);
      t.g = address(grad_a(l));
      t.grad_x = address(m_.grad_y);
      for_channels(block, batch.count, 1, [&](const auto& ch) { sparsemeta::SPARSEMETA_ISA::backward(ch, t); });
      const auto g = view(m_.grad_y, block.conv->y, block.channels());
      const auto x = view(l ? m_.blocks[l - 1].a : batch.images, block.conv->x, block.conv->x.channels);
      masked_conv2d_weight_grad(*block.conv, g, x, {address(grad + block.values), 0}, work(batch.count));
      if (l)
        masked_conv2d_input_grad(*block.conv, g, {address(theta + block.values), 0},
                                 view(grad_a(l - 1), block.conv->x, block.conv->x.channels), work(batch.count));
    }
  }

  // The Hessian of the batch's loss at theta, times `tangent`: the tangent of both passes above.
  void hessian_product(const Batch<T>& batch, const T* theta, const T* tangent, T* product) {
    forward_with_tangent(batch, theta, tangent);
    const auto& linear = chain_.head;
    const auto head = of_head(batch.count, 2);
    const T *a = m_.blocks.back().a, *a_d = a + linear.features;
    double unused[2];
    head.loss(batch.labels, m_.logits, unused);
    head.loss_tangent(batch.labels, m_.logits, m_.logits_d);
    std::fill_n(m_.grad_head, linear.ways * linear.features, T{0});
    head.weight_grad(m_.logits_d, a, m_.grad_head);
    head.weight_grad(m_.logits, a_d, m_.grad_head);
    head.compress(m_.grad_head, product + linear.values);
    head.bias_grad(m_.logits_d, product + linear.bias);
    T* grad = grad_a(chain_.blocks.size() - 1);
    head.input_grad(m_.logits_d, m_.head, false, grad);
    head.input_grad(m_.logits, m_.head_d, true, grad);
    head.input_grad(m_.logits, m_.head, false, grad + linear.features);
    for (auto l = chain_.blocks.size(); l-- > 0;) backward_with_tangent(l, batch, theta, tangent, product);
  }

 private:
  void forward_with_tangent(const Batch<T>& batch, const T* theta, const T* tangent) {
    for (std::size_t l = 0; l < chain_.blocks.size(); ++l) {
      const auto& block = chain_.blocks[l];
      const auto& of = m_.blocks[l];
      if (!l && chain_.first.fits()) {
        first_.forward(batch.packed, batch.count, theta, tangent, 2 * block.channels(), of.a, of.a + block.channels() * block.cells(), of.code);
        continue;
      }
      std::copy_n(theta + block.bias, block.biased ? block.channels() : 0, m_.bias);
      std::copy_n(tangent + block.bias, block.biased ? block.channels() : 0, m_.bias + block.channels());
      masked_conv2d(*block.dual, view(l ? m_.blocks[l - 1].a : batch.images, block.dual->x, block.dual->x.channels),
                    {address(dual_values(l, theta, tangent)), 0}, {block.biased ? address(m_.bias) : 0, 0},
                    view(m_.blocks[l].y, block.dual->y, 2 * block.channels()), work(batch.count));
      const auto t = tensors(l, theta);
      const auto d = tangents(l, tangent);
      for_channels(block, batch.count, 2, [&](const auto& ch) {
        sparsemeta::SPARSEMETA_ISA::forward(ch, t);
        forward_tangent(ch, t, d);
      });
    }
    const auto head = of_head(batch.count, 2);
    const T* a = m_.blocks.back().a;
    head.expand(theta + chain_.head.values, m_.head);
    head.expand(tangent + chain_.head.values, m_.head_d);
    head.multiply(a, m_.head, chain_.head.biased ? theta + chain_.head.bias : nullptr, false, m_.logits);
    head.multiply(a, m_.head_d, chain_.head.biased ? tangent + chain_.head.bias : nullptr, false, m_.logits_d);
    head.multiply(a + chain_.head.features, m_.head, nullptr, true, m_.logits_d);
  }

  void backward_with_tangent(std::size_t l, const Batch<T>& batch, const T* theta, const T* tangent, T* product) {
    const auto& block = chain_.blocks[l];
    const auto& plan = *block.conv;
    const auto inside = block.channels() * block.plane(), pooled = block.channels() * block.cells();
    if (!l && chain_.first.fits())
      return first_.backward(batch.packed, batch.count, theta, tangent, 2 * block.channels(), grad_a(l) + pooled, grad_a(l), m_.blocks[l].code, product);
    auto t = tensors(l, theta);
    std::tie(t.grad_weight, t.grad_bias) = std::pair(address(m_.extra), address(m_.extra));
    t.g = address(grad_a(l) + pooled);
    t.grad_x = address(m_.grad_y + inside);
    auto d = tangents(l, tangent);
    std::tie(d.grad_weight, d.grad_bias) = norm_grads(block, product);
    d.g = address(grad_a(l));
    d.grad_x = address(m_.grad_y);
    for_channels(block, batch.count, 2, [&](const auto& ch) { sparsemeta::SPARSEMETA_ISA::backward_with_tangent(ch, t, d); });

    const auto in = plan.x.channels * plan.x.height * plan.x.width;
    const T* x = l ? m_.blocks[l - 1].a : batch.images;
    masked_conv2d_weight_grad(plan, view(m_.grad_y, plan.y, 2 * block.channels()), view(x, plan.x, (l ? 2 : 1) * plan.x.channels),
                              {address(product + block.values), 0}, work(batch.count));
    if (!l) return;
    masked_conv2d_weight_grad(plan, view(m_.grad_y + inside, plan.y, 2 * block.channels()), view(x + in, plan.x, 2 * plan.x.channels),
                              {address(m_.extra), 0}, work(batch.count));
    for (std::int64_t j = 0; j < plan.nnz; ++j) product[block.values + j] += m_.extra[j];
    masked_conv2d_input_grad(*block.dual, view(m_.grad_y, block.dual->y, 2 * block.channels()), {address(dual_values(l, theta, tangent)), 0},
                             view(grad_a(l - 1), block.dual->x, block.dual->x.channels), work(batch.count));
  }

  // Of the weight [[w, 0], [dw, w]], in the order of its index.
  const T* dual_values(std::size_t l, const T* theta, const T* tangent) {
    const auto& block = chain_.blocks[l];
    const auto n = block.conv->nnz;
    std::copy_n(theta + block.values, n, m_.values);
    std::copy_n(tangent + block.values, n, m_.values + n);
    if (l) std::copy_n(theta + block.values, n, m_.values + 2 * n);
    return m_.values;
  }

  NormTensors tensors(std::size_t l, const T* theta) const {
    const auto& block = chain_.blocks[l];
    const auto& of = m_.blocks[l];
    const T *gamma = block.normalises ? theta + block.gamma : m_.ones, *beta = block.normalises ? theta + block.beta : m_.zeros;
    return {address(of.y), address(gamma), address(beta), address(of.a), address(of.mean), address(of.rstd), address(of.code), 0, 0, 0, 0};
  }

  NormTangents tangents(std::size_t l, const T* tangent) const {
    const auto& block = chain_.blocks[l];
    const auto& of = m_.blocks[l];
    const T *gamma = block.normalises ? tangent + block.gamma : m_.zeros, *beta = block.normalises ? tangent + block.beta : m_.zeros;
    return {address(of.y + block.channels() * block.plane()), address(gamma), address(beta), address(of.a + block.channels() * block.cells()),
            0, 0, 0, 0, address(of.mean_v), address(of.mean_vx)};
  }

  // Where the gradients of gamma and beta go. A bias that normalisation takes away has none; without normalisation it is beta.
  std::pair<std::uintptr_t, std::uintptr_t> norm_grads(const ChainBlock& block, T* grad) const {
    if (!block.normalises) return {address(m_.extra), address(block.biased ? grad + block.bias : m_.extra)};
    if (block.biased) std::fill_n(grad + block.bias, block.channels(), T{0});
    return {address(grad + block.gamma), address(grad + block.beta)};
  }

  T* grad_a(std::size_t l) const { return m_.grad_a[l % 2]; }
  Head<T> of_head(std::int64_t images, int copies) const { return {chain_.head, images, copies * chain_.head.features}; }
  Work work(std::int64_t images) const { return {1, images, chain_.f64, threads_}; }

  // Calls f with every channel of the block's values, in images of `copies` times as many channels.
  template <class F>
  void for_channels(const ChainBlock& block, std::int64_t images, int copies, F f) const {
    const NormShape shape{images, copies * block.channels(), block.conv->y.height, block.conv->y.width, block.pool, block.eps, block.slope, chain_.f64, 1};
    const bool large = images * block.channels() * block.plane() > 32768;  // else waking a thread costs more
#pragma omp parallel for num_threads(large ? threads_ : 1) schedule(static)
    for (std::int64_t c = 0; c < block.channels(); ++c)
      block.pool == 2 ? f(Channel<T, 2>{shape, c, block.normalises}) : f(Channel<T, 1>{shape, c, block.normalises});
  }

  const Chain& chain_;
  ChainMemory<T>& m_;
  int threads_;
  First<T> first_;
};

template <class T>
struct Run {
  const Chain& chain;
  const ChainCall& call;

  Batch<T> batch(std::uintptr_t x, std::uintptr_t y, std::int64_t images, std::int64_t task, const FirstImages<T>& packed) const {
    const auto& in = chain.blocks.front().conv->x;
    const auto size = images * in.channels * in.height * in.width;
    return {reinterpret_cast<const T*>(x) + task * size, reinterpret_cast<const std::int64_t*>(y) + task * images, images, packed};
  }

  void step(const T* from, const T* grad, T* to) const {
    const T* rates = reinterpret_cast<const T*>(call.rates);
    for (std::int64_t i = 0; i < chain.parameters; ++i) to[i] = from[i] - rates[i] * grad[i];
  }

  // One task; its meta-gradient is added to memory.sum.
  void task(std::int64_t t, ChainMemory<T>& m, int threads) const {
    Passes<T> passes(chain, m, threads);
    const auto support = batch(call.support_x, call.support_y, call.supports, t, m.support);
    const auto query = batch(call.query_x, call.query_y, call.queries, t, m.query);
    passes.prepare(support);
    passes.prepare(query);
    const auto n = chain.parameters, stride = call.order == Order::second ? n : 0;
    double unused[2];
    T* theta = m.trajectory;
    std::copy_n(reinterpret_cast<const T*>(call.theta), n, theta);
    for (std::int64_t k = 0; k < call.steps; ++k, theta += stride) {
      passes.forward(support, theta);
      passes.head_loss(support, unused);
      passes.backward(support, theta, m.grad);
      step(theta, m.grad, theta + stride);
    }
    if (call.adapted) std::copy_n(theta, n, reinterpret_cast<T*>(call.adapted) + t * n);
    judge(passes, query, theta, m, t);
    if (call.order == Order::none) return;
    passes.backward(query, theta, m.v);
    for (auto k = call.order == Order::second ? call.steps : 0; k-- > 0;) pull_back(passes, support, theta -= n, m);
    for (std::int64_t i = 0; i < n; ++i) m.sum[i] += m.v[i];
  }

  void judge(Passes<T>& passes, const Batch<T>& query, const T* theta, ChainMemory<T>& m, std::int64_t t) const {
    passes.forward(query, theta);
    const auto size = call.queries * chain.head.ways;
    if (call.logits) std::copy_n(m.logits, size, reinterpret_cast<T*>(call.logits) + t * size);
    double result[2];
    passes.head_loss(query, result);
    std::copy_n(result, 2, reinterpret_cast<double*>(call.results) + 2 * t);
  }

  // v_k = v_{k+1} - H_k (rates * v_{k+1})
  void pull_back(Passes<T>& passes, const Batch<T>& support, const T* theta, ChainMemory<T>& m) const {
    const T* rates = reinterpret_cast<const T*>(call.rates);
    for (std::int64_t i = 0; i < chain.parameters; ++i) m.tangent[i] = rates[i] * m.v[i];
    passes.hessian_product(support, theta, m.tangent, m.grad);
    for (std::int64_t i = 0; i < chain.parameters; ++i) m.v[i] -= m.grad[i];
  }
};

template <class T>
void run(Chain& chain, const ChainCall& call) {
  const Run<T> run{chain, call};
  // As many tasks side by side as there are threads; what is left over has all threads inside.
  const auto apart = call.tasks / call.threads * call.threads;
  std::vector<ChainMemory<T>> memories;
  Pieces count(nullptr);
  ChainMemory<T>(chain, call, count);
  chain.arenas.resize(static_cast<std::size_t>(std::max<std::int64_t>(apart ? call.threads : 1, static_cast<std::int64_t>(chain.arenas.size()))));
  for (int thread = 0; thread < (apart ? call.threads : 1); ++thread) {
    Pieces pieces(chain.arenas[static_cast<std::size_t>(thread)].get(count.bytes()));
    memories.emplace_back(chain, call, pieces);
  }
#pragma omp parallel for num_threads(call.threads) schedule(static)
  for (std::int64_t t = 0; t < apart; ++t) run.task(t, memories[static_cast<std::size_t>(omp_get_thread_num())], 1);
  for (auto t = apart; t < call.tasks; ++t) run.task(t, memories.front(), call.threads);

  if (call.order == Order::none) return;
  T* gradient = reinterpret_cast<T*>(call.gradient);
  for (std::int64_t i = 0; i < chain.parameters; ++i) {
    T sum = 0;
    for (const auto& memory : memories) sum += memory.sum[i];
    gradient[i] = sum / static_cast<T>(call.tasks);
  }
}

}  // namespace

void run_chain(Chain& chain, const ChainCall& call) { chain.f64 ? run<double>(chain, call) : run<float>(chain, call); }

}  // namespace sparsemeta::SPARSEMETA_ISA
