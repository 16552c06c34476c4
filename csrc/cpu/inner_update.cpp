// The inner-loop update of all parameters in one pass: out = p - lr * g.
#include <algorithm>
#include <vector>

#include "kernels.h"

namespace sparsemeta::SPARSEMETA_ISA {
namespace {

constexpr std::int64_t kPiece = 8192;             // elements a thread takes at once: three float streams fit in L2
constexpr std::int64_t kParallelFrom = 64 * 1024;  // elements below which waking the threads costs more than it saves

template <typename T>
void update(const T* p, const T* g, T* out, std::int64_t n, T lr) {
  if (p == nullptr) {
    for (std::int64_t i = 0; i < n; ++i) out[i] = -lr * g[i];
  } else {
    for (std::int64_t i = 0; i < n; ++i) out[i] = p[i] - lr * g[i];
  }
}

// A stretch of one parameter: large ones are cut, so that the threads share the work whatever the layer sizes.
struct Piece {
  std::int64_t parameter, begin, size;
};

std::vector<Piece> cut(const std::int64_t* n, std::int64_t count) {
  std::vector<Piece> pieces;
  for (std::int64_t i = 0; i < count; ++i)
    for (std::int64_t begin = 0; begin < n[i]; begin += kPiece)
      pieces.push_back({i, begin, std::min(kPiece, n[i] - begin)});
  return pieces;
}

template <typename T>
void update_all(const std::uintptr_t* p, const std::uintptr_t* g, const std::uintptr_t* out, const std::int64_t* n,
                const double* lr, std::int64_t count) {
  const std::vector<Piece> pieces = cut(n, count);
  const std::int64_t total = static_cast<std::int64_t>(pieces.size());
  std::int64_t elements = 0;
  for (std::int64_t i = 0; i < count; ++i) elements += n[i];
#pragma omp parallel for schedule(static) if (elements > kParallelFrom)
  for (std::int64_t k = 0; k < total; ++k) {
    const auto [i, begin, size] = pieces[k];
    const T* from = p[i] ? reinterpret_cast<const T*>(p[i]) + begin : nullptr;
    update(from, reinterpret_cast<const T*>(g[i]) + begin, reinterpret_cast<T*>(out[i]) + begin, size,
           static_cast<T>(lr[i]));
  }
}

}  // namespace

// `count` parameters of n[i] contiguous elements, by address; p[i] == 0 stands for zeros. out[i] may be p[i] or g[i].
void inner_update(const std::uintptr_t* p, const std::uintptr_t* g, const std::uintptr_t* out, const std::int64_t* n,
                  const double* lr, std::int64_t count, bool f64) {
  if (f64)
    update_all<double>(p, g, out, n, lr, count);
  else
    update_all<float>(p, g, out, n, lr, count);
}

}  // namespace sparsemeta::SPARSEMETA_ISA
