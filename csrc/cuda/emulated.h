#pragma once

#include <pybind11/pybind11.h>

namespace sparsemeta {

// The CUDA kernels as programs of the CPU, for tests and debugging.
void bind_emulated(pybind11::module_& m);

}  // namespace sparsemeta
