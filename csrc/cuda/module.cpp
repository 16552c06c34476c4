// The module sparsemeta._CUDA: importing it asks nothing of a driver.
#include "bindings.h"

PYBIND11_MODULE(_CUDA, m) {
  using namespace sparsemeta::cuda;
  m.def("problem", &problem);
  bind<OnDevice>(m);
}
