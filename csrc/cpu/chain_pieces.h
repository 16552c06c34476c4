// Pieces of the memory that a thread keeps from call to call.
#pragma once

#include <cstdint>

namespace sparsemeta::SPARSEMETA_ISA {

// Hands out pieces of an arena one after another, or, without one, counts them.
class Pieces {
 public:
  explicit Pieces(void* base) : base_(static_cast<char*>(base)) {}
  template <class T>
  T* take(std::int64_t n) {
    const auto at = used_;
    used_ += (n * static_cast<std::int64_t>(sizeof(T)) + 63) / 64 * 64;
    return base_ ? reinterpret_cast<T*>(base_ + at) : nullptr;
  }
  std::int64_t bytes() const { return used_; }

 private:
  char* base_;
  std::int64_t used_ = 0;
};

}  // namespace sparsemeta::SPARSEMETA_ISA
