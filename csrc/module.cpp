// Python bindings: addresses, sizes and strides in, nothing of PyTorch. The instruction set is chosen here, at run time.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>
#include <unistd.h>

#include <optional>
#include <stdexcept>
#include <string>

#include "cpu/kernels.h"
#include "cuda/emulated.h"

namespace py = pybind11;

namespace sparsemeta {
namespace {

struct Kernels {
  const char* name;
  decltype(&baseline::machine) machine;
  decltype(&baseline::masked_conv2d) masked_conv2d;
  decltype(&baseline::masked_conv2d_input_grad) masked_conv2d_input_grad;
  decltype(&baseline::masked_conv2d_weight_grad) masked_conv2d_weight_grad;
  decltype(&baseline::inner_update) inner_update;
  decltype(&baseline::norm_act_pool) norm_act_pool;
  decltype(&baseline::norm_act_pool_grad) norm_act_pool_grad;
  decltype(&baseline::norm_act_pool_grad_grad) norm_act_pool_grad_grad;
  decltype(&baseline::norm_act_pool_gather) norm_act_pool_gather;
  decltype(&baseline::norm_act_pool_scatter) norm_act_pool_scatter;
  decltype(&baseline::run_chain) run_chain;
};

#define SPARSEMETA_ENTRY(isa)                                                                                       \
  Kernels {                                                                                                         \
    #isa, isa::machine, isa::masked_conv2d, isa::masked_conv2d_input_grad, isa::masked_conv2d_weight_grad,           \
        isa::inner_update, isa::norm_act_pool, isa::norm_act_pool_grad, isa::norm_act_pool_grad_grad,                \
        isa::norm_act_pool_gather, isa::norm_act_pool_scatter, isa::run_chain                                        \
  }

// Sets this machine can run, best first.
std::vector<Kernels> runnable() {
  std::vector<Kernels> found;
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  if (avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512vl"))
    found.push_back(SPARSEMETA_ENTRY(avx512));
  if (avx2) found.push_back(SPARSEMETA_ENTRY(avx2));
#endif
  found.push_back(SPARSEMETA_ENTRY(baseline));
  return found;
}

Kernels& kernels() {
  static Kernels chosen = runnable().front();
  return chosen;
}

std::vector<std::string> isas() {
  std::vector<std::string> names;
  for (const auto& k : runnable()) names.push_back(k.name);
  return names;
}

void set_isa(const std::string& name) {
  std::string names;
  for (const auto& k : runnable()) {
    if (k.name == name) {
      kernels() = k;
      return;
    }
    names += std::string(names.empty() ? "" : ", ") + k.name;
  }
  throw std::invalid_argument("expected an instruction set of this machine (" + names + "), got '" + name + "'");
}

// What packed lines may fill of a cache; the rest is for outputs and index.
std::int64_t cache_bytes(int which, std::int64_t otherwise) {
  const auto size = sysconf(which);
  return (size > 0 ? size : otherwise) / 4 * 3;
}

// Whether plans carry code generated for their pattern; off, every kernel is the compiled one.
bool& generates() {
  static bool on = true;
  return on;
}

using Strides = std::array<std::int64_t, 5>;

View view(std::uintptr_t data, const Strides& s) { return {data, s[0], s[1], s[2], s[3], s[4]}; }

View dense_view(std::uintptr_t data, const Plane& p, std::int64_t images) {
  return {data, images * p.channels * p.height * p.width, p.channels * p.height * p.width, p.height * p.width, p.width, 1};
}

std::unique_ptr<ConvPlan> make_plan(std::uintptr_t index, std::int64_t nnz, std::array<std::int64_t, 4> weight, std::array<std::int64_t, 2> input,
                   std::array<std::int64_t, 2> stride, std::array<std::int64_t, 4> padding, std::array<std::int64_t, 2> dilation,
                   std::int64_t groups) {
  return std::make_unique<ConvPlan>(ConvShape{weight, input, stride, padding, dilation, groups}, reinterpret_cast<const std::int64_t*>(index), nnz,
                  kernels().machine(cache_bytes(_SC_LEVEL1_DCACHE_SIZE, 32 << 10), cache_bytes(_SC_LEVEL2_CACHE_SIZE, 512 << 10), generates()));
}

void forward(const ConvPlan& plan, std::uintptr_t x, const Strides& xs, std::uintptr_t values, std::int64_t value_task,
             std::uintptr_t bias, std::int64_t bias_task, std::uintptr_t y, std::int64_t tasks, std::int64_t images, bool f64, int threads) {
  kernels().masked_conv2d(plan, view(x, xs), {values, value_task}, {bias, bias_task}, dense_view(y, plan.y, images),
                          {tasks, images, f64, threads});
}

void input_grad(const ConvPlan& plan, std::uintptr_t g, const Strides& gs, std::uintptr_t values, std::int64_t value_task,
                std::uintptr_t x, std::int64_t tasks, std::int64_t images, bool f64, int threads) {
  kernels().masked_conv2d_input_grad(plan, view(g, gs), {values, value_task}, dense_view(x, plan.x, images),
                                     {tasks, images, f64, threads});
}

void weight_grad(const ConvPlan& plan, std::uintptr_t g, const Strides& gs, std::uintptr_t x, const Strides& xs, std::uintptr_t values,
                 std::int64_t tasks, std::int64_t images, bool f64, int threads) {
  kernels().masked_conv2d_weight_grad(plan, view(g, gs), view(x, xs), {values, plan.nnz}, {tasks, images, f64, threads});
}

void inner_update(const std::vector<std::uintptr_t>& params, const std::vector<std::uintptr_t>& grads,
                  const std::vector<std::uintptr_t>& outs, const std::vector<std::int64_t>& sizes,
                  const std::vector<double>& rates, bool f64) {
  const auto count = static_cast<std::int64_t>(params.size());
  kernels().inner_update(params.data(), grads.data(), outs.data(), sizes.data(), rates.data(), count, f64);
}

using Address = std::uintptr_t;
// images, channels, height, width, pool
using Sizes = std::array<std::int64_t, 5>;

NormShape norm_shape(const Sizes& s, double eps, double slope, bool f64, int threads) {
  return {s[0], s[1], s[2], s[3], s[4], eps, slope, f64, threads};
}

// x, weight, mean, rstd, and whether the last two are given
using Branch = std::tuple<Address, Address, Address, Address, bool>;

NormTensors norm_tensors(const Branch& branch) {
  const auto& [x, weight, mean, rstd, given] = branch;
  return {x, weight, 0, 0, mean, rstd, 0, 0, 0, 0, 0, given};
}

void norm_act_pool(const Sizes& sizes, double eps, double slope, bool f64, int threads, const Branch& branch, Address bias, Address y,
                   Address code, const std::optional<Branch>& residual) {
  auto t = norm_tensors(branch);
  t.bias = bias, t.y = y, t.code = code;
  const auto r = residual ? norm_tensors(*residual) : NormTensors{};
  kernels().norm_act_pool(norm_shape(sizes, eps, slope, f64, threads), t, residual ? &r : nullptr);
}

void norm_act_pool_grad(const Sizes& sizes, double eps, double slope, bool f64, int threads, Address g, Address code, const Branch& branch,
                        Address grad_x, Address grad_weight, Address grad_bias) {
  auto t = norm_tensors(branch);
  t.g = g, t.code = code, t.grad_x = grad_x, t.grad_weight = grad_weight, t.grad_bias = grad_bias;
  kernels().norm_act_pool_grad(norm_shape(sizes, eps, slope, f64, threads), t);
}

void norm_act_pool_grad_grad(const Sizes& sizes, double eps, double slope, bool f64, int threads, Address v, Address v_weight,
                             Address v_bias, Address g, Address code, const Branch& branch, Address grad_g, Address grad_x,
                             Address grad_weight) {
  auto t = norm_tensors(branch);
  t.g = g, t.code = code, t.grad_x = grad_x, t.grad_weight = grad_weight;
  kernels().norm_act_pool_grad_grad(norm_shape(sizes, eps, slope, f64, threads), t, {v, v_weight, v_bias, grad_g});
}

void norm_act_pool_gather(const Sizes& sizes, double slope, bool f64, int threads, Address code, Address x, Address y) {
  kernels().norm_act_pool_gather(norm_shape(sizes, 0, slope, f64, threads), {x, 0, 0, y, 0, 0, code, 0, 0, 0, 0});
}

void norm_act_pool_scatter(const Sizes& sizes, double slope, bool f64, int threads, Address code, Address g, Address grad_x) {
  kernels().norm_act_pool_scatter(norm_shape(sizes, 0, slope, f64, threads), {0, 0, 0, 0, 0, 0, code, g, grad_x, 0, 0});
}

using Plan = std::shared_ptr<ConvPlan>;
// plan, plan with tangents, has a bias, normalises, pool, eps, slope
using BlockArguments = std::tuple<Plan, Plan, bool, bool, std::int64_t, double, double>;

// index and shape of a convolution, as of ConvPlan
using ConvArguments = std::tuple<Address, std::int64_t, std::array<std::int64_t, 4>, std::array<std::int64_t, 2>, std::array<std::int64_t, 2>,
                                 std::array<std::int64_t, 4>, std::array<std::int64_t, 2>, std::int64_t>;

std::unique_ptr<Chain> make_chain(const std::vector<BlockArguments>& given, const ConvArguments& first, Address head, std::int64_t kept, std::int64_t features,
                                  std::int64_t ways, bool head_bias, bool f64) {
  std::vector<ChainBlock> blocks;
  for (const auto& [plan, dual, bias, normalises, pool, eps, slope] : given)
    blocks.push_back({plan, dual, bias, normalises, pool, eps, slope});
  const auto& [of_first, nnz, weight, input, stride, padding, dilation, groups] = first;
  const FirstBlock images({weight, input, stride, padding, dilation, groups}, reinterpret_cast<const std::int64_t*>(of_first), nnz, blocks[0].pool);
  const auto* index = reinterpret_cast<const std::int64_t*>(head);
  return std::make_unique<Chain>(std::move(blocks), images, ChainHead{{index, index + kept}, features, ways, head_bias}, f64);
}

// sizes: tasks, supports, queries, steps; order: 0 for no gradient
void run_chain(Chain& chain, const std::array<std::int64_t, 4>& sizes, int order, int threads, const std::array<Address, 6>& inputs,
               const std::array<Address, 4>& outputs) {
  const std::lock_guard<std::mutex> lock(chain.busy);
  kernels().run_chain(chain, {sizes[0], sizes[1], sizes[2], sizes[3], static_cast<Order>(order), threads, inputs[0], inputs[1], inputs[2],
                              inputs[3], inputs[4], inputs[5], outputs[0], outputs[1], outputs[2], outputs[3]});
}

}  // namespace
}  // namespace sparsemeta

PYBIND11_MODULE(_C, m) {
  using namespace sparsemeta;
  using unlocked = py::call_guard<py::gil_scoped_release>;
  m.def("isa", [] { return std::string(kernels().name); });
  m.def("isas", &isas);
  m.def("set_isa", &set_isa);
  m.def("set_generate", [](bool on) { generates() = on; });
  m.def("inner_update", &sparsemeta::inner_update, unlocked());
  m.def("norm_act_pool", &sparsemeta::norm_act_pool, unlocked());
  m.def("norm_act_pool_grad", &sparsemeta::norm_act_pool_grad, unlocked());
  m.def("norm_act_pool_grad_grad", &sparsemeta::norm_act_pool_grad_grad, unlocked());
  m.def("norm_act_pool_gather", &sparsemeta::norm_act_pool_gather, unlocked());
  m.def("norm_act_pool_scatter", &sparsemeta::norm_act_pool_scatter, unlocked());
  py::module_ emulated = m.def_submodule("cuda_on_cpu");
  bind_emulated(emulated);
  py::class_<Chain>(m, "Chain")
      .def(py::init(&make_chain))
      .def("run", &run_chain, unlocked())
      .def("arena_bytes", &Chain::arena_bytes)
      .def_readonly("parameters", &Chain::parameters);
  py::class_<ConvPlan, std::shared_ptr<ConvPlan>>(m, "ConvPlan")
      .def(py::init(&make_plan))
      .def("forward", &forward, unlocked())
      .def("input_grad", &input_grad, unlocked())
      .def("weight_grad", &weight_grad, unlocked());
}
