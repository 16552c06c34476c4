// Python bindings of a runner (launch.h). Tensors are addresses and strides, the stream is an integer.
#pragma once

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>

#include "conv_source.h"
#include "conv_table.h"
#include "generated_conv2d.h"
#include "launch.h"

namespace sparsemeta::cuda {

using Address = std::uintptr_t;
using Strides = std::array<std::int64_t, 5>;
using Where = std::tuple<int, Address>;  // device, stream

inline View view(Address data, const Strides& s) { return {data, s[0], s[1], s[2], s[3], s[4]}; }

// A table and what its kernels are launched with. The kernels read a copy, at the address that each call gives.
// `pixels`: of a thread; `generated`: for the kernel that is to be compiled from `source`.
template <class Runner>
class ConvPlan {
 public:
  ConvPlan(Address index, std::int64_t nnz, std::array<std::int64_t, 4> weight, std::array<std::int64_t, 2> input,
           std::array<std::int64_t, 2> stride, std::array<std::int64_t, 4> padding, std::array<std::int64_t, 2> dilation,
           std::int64_t groups, int pass, int pixels, bool generated)
      : pixels_(pixels),
        words_(make_table({weight, input, stride, padding, dilation, groups}, reinterpret_cast<const std::int64_t*>(index), nnz,
                          static_cast<Pass>(pass), pixels * (generated ? kGeneratedThreads : kLanes))),
        source_(generated ? write_source(words_, pixels) : "") {}

  int shared_bytes() const { return table().shared_words * kWord; }
  int threads() const { return source_.empty() ? table().warps * kLanes : kGeneratedThreads; }
  const std::string& source() const { return source_; }
  std::size_t words() const { return words_.size(); }
  void copy_to(Address to) const { std::memcpy(reinterpret_cast<void*>(to), words_.data(), words_.size() * sizeof(std::int32_t)); }

  std::int64_t blocks(std::int64_t tasks, std::int64_t images) const { return tasks * table().blocks(images); }

  // Parts into which the tiles of a weight gradient are split, so that there are two blocks for every processor.
  int splits(std::int64_t tasks, std::int64_t images, std::int64_t processors) const {
    const std::int64_t tiles = table().phase(0).tiles(images), blocks = std::max<std::int64_t>(tasks * table().all_chunks, 1);
    return static_cast<int>(std::clamp<std::int64_t>((2 * processors + blocks - 1) / blocks, 1, std::max<std::int64_t>(tiles, 1)));
  }

  void convolve(Address at, Address in, const Strides& ins, Address values, std::int64_t value_task, Address bias, std::int64_t bias_task,
                Address out, const Strides& outs, std::int64_t tasks, std::int64_t images, bool bf16, const Where& where) const {
    const ConvArgs args = arguments(at, in, ins, values, value_task, bias, bias_task, out, outs, images);
    Runner::convolve(args, launch(tasks * args.task_blocks, bf16, where));
  }

  // Argument of the generated kernel.
  pybind11::bytes generated_arguments(Address at, Address in, const Strides& ins, Address values, std::int64_t value_task, Address bias,
                                      std::int64_t bias_task, Address out, const Strides& outs, std::int64_t images) const {
    const ConvArgs args = arguments(at, in, ins, values, value_task, bias, bias_task, out, outs, images);
    return {reinterpret_cast<const char*>(&args), sizeof args};
  }

  // `values` 0: the gradient itself; otherwise their new values.
  void weight_gradient(Address at, Address g, const Strides& gs, Address x, const Strides& xs, Address out, Address parts,
                       Address values, std::int64_t value_task, double rate, std::int64_t tasks, std::int64_t images, int splits,
                       bool bf16, const Where& where) const {
    const Epilogue end{out, values, value_task, table().nnz, static_cast<float>(rate)};
    Runner::weight_gradient({on_device(at), view(g, gs), view(x, xs), end, parts, tasks, images, splits},
                            launch(tasks * splits * table().all_chunks, bf16, where));
    if (splits == 1) return;
    const std::int64_t blocks = (tasks * table().nnz + kAddThreads - 1) / kAddThreads;
    const auto [device, stream] = where;
    Runner::add_parts({end, parts, tasks, splits}, {blocks, kAddThreads, 0, 0, bf16, device, stream});
  }

 private:
  const Table& table() const { return as_table(words_); }
  static const Table* on_device(Address at) { return reinterpret_cast<const Table*>(at); }
  ConvArgs arguments(Address at, Address in, const Strides& ins, Address values, std::int64_t value_task, Address bias,
                     std::int64_t bias_task, Address out, const Strides& outs, std::int64_t images) const {
    return {on_device(at), view(in, ins), view(out, outs), values, bias, value_task, bias_task, images, table().blocks(images)};
  }
  Launch launch(std::int64_t blocks, bool bf16, const Where& where) const {
    const auto [device, stream] = where;
    return {blocks, threads(), table().shared_words, pixels_, bf16, device, stream};
  }

  int pixels_;
  std::vector<std::int32_t> words_;
  std::string source_;
};

template <class Runner>
void inner_update(const std::vector<Address>& params, const std::vector<Address>& grads, const std::vector<Address>& outs,
                  const std::vector<std::int64_t>& sizes, const std::vector<double>& rates, bool bf16, const Where& where) {
  const auto [device, stream] = where;
  for (std::size_t begin = 0; begin < sizes.size(); begin += kUpdates) {
    const std::size_t end = std::min(begin + kUpdates, sizes.size());
    UpdateArgs a{};
    std::int64_t blocks = 0;
    for (std::size_t i = begin; i < end; ++i) {
      a.all[a.count++] = {params[i], grads[i], outs[i], sizes[i], blocks, static_cast<float>(rates[i])};
      blocks += update_blocks(sizes[i]);
    }
    Runner::update(a, {blocks, kUpdateThreads, 0, 0, bf16, device, stream});
  }
}

template <class Runner>
void bind(pybind11::module_& m) {
  namespace py = pybind11;
  using Plan = ConvPlan<Runner>;
  using unlocked = py::call_guard<py::gil_scoped_release>;
  m.def("inner_update", &inner_update<Runner>, unlocked());
  m.def("source_headers", &source_headers);
  py::class_<Plan>(m, "ConvPlan", py::module_local())
      .def(py::init<Address, std::int64_t, std::array<std::int64_t, 4>, std::array<std::int64_t, 2>, std::array<std::int64_t, 2>,
                    std::array<std::int64_t, 4>, std::array<std::int64_t, 2>, std::int64_t, int, int, bool>())
      .def("shared_bytes", &Plan::shared_bytes)
      .def("threads", &Plan::threads)
      .def("words", &Plan::words)
      .def("copy_to", &Plan::copy_to)
      .def("source", &Plan::source)
      .def("generated_arguments", &Plan::generated_arguments)
      .def("blocks", &Plan::blocks)
      .def("splits", &Plan::splits)
      .def("convolve", &Plan::convolve, unlocked())
      .def("weight_gradient", &Plan::weight_gradient, unlocked());
}

}  // namespace sparsemeta::cuda
