// The module sparsemeta._CUDA: importing it asks nothing of a driver.
#include "bindings.h"

PYBIND11_MODULE(_CUDA, m) { sparsemeta::cuda::bind<sparsemeta::cuda::OnDevice>(m); }
