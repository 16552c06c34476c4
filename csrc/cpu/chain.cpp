// The inner loop of MAML and its meta-gradient on a chain of blocks, as one call. See ../README.md, "A chain of blocks".
#include "../chain.h"

#include <omp.h>

#include "chain_passes.h"

namespace sparsemeta::SPARSEMETA_ISA {
namespace {

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
      passes.forward(support, {theta, nullptr});
      passes.loss(support, unused);
      passes.backward(support, {theta, nullptr}, m.grad);
      step(theta, m.grad, theta + stride);
    }
    if (call.adapted) std::copy_n(theta, n, reinterpret_cast<T*>(call.adapted) + t * n);
    judge(passes, query, theta, m, t);
    if (call.order == Order::none) return;
    passes.backward(query, {theta, nullptr}, m.v);
    for (auto k = call.order == Order::second ? call.steps : 0; k-- > 0;) pull_back(passes, support, theta -= n, m);
    for (std::int64_t i = 0; i < n; ++i) m.sum[i] += m.v[i];
  }

  void judge(Passes<T>& passes, const Batch<T>& query, const T* theta, ChainMemory<T>& m, std::int64_t t) const {
    passes.forward(query, {theta, nullptr});
    const auto size = call.queries * chain.head.ways;
    if (call.logits) std::copy_n(m.logits, size, reinterpret_cast<T*>(call.logits) + t * size);
    double result[2];
    passes.loss(query, result);
    std::copy_n(result, 2, reinterpret_cast<double*>(call.results) + 2 * t);
  }

  // v_k = v_{k+1} - H_k (rates * v_{k+1})
  void pull_back(Passes<T>& passes, const Batch<T>& support, const T* theta, ChainMemory<T>& m) const {
    const T* rates = reinterpret_cast<const T*>(call.rates);
    for (std::int64_t i = 0; i < chain.parameters; ++i) m.tangent[i] = rates[i] * m.v[i];
    double unused[2];
    passes.forward(support, {theta, m.tangent});
    passes.loss(support, unused);
    passes.backward(support, {theta, m.tangent}, m.grad);  // the tangent of the gradient: the product
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
