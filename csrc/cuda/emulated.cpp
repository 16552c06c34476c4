// The same functions on the CPU, in sparsemeta._C.
#include "emulated.h"

#include "bindings.h"

namespace sparsemeta {

void bind_emulated(pybind11::module_& m) { cuda::bind<cuda::OnHost>(m); }

}  // namespace sparsemeta
