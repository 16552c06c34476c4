// Memory of one thread, kept from call to call.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>

#include "simd.h"

namespace sparsemeta::SPARSEMETA_ISA {

struct Free {
  void operator()(void* p) const { std::free(p); }
};

template <class T>
class Buffer {
 public:
  T* get(std::int64_t n) {
    if (n > size_) {
      const auto bytes = (static_cast<std::size_t>(n) * sizeof(T) + 4095) / 4096 * 4096;
      memory_.reset(static_cast<T*>(std::aligned_alloc(4096, bytes)));
      if (!memory_) throw std::bad_alloc();
      size_ = n;
    }
    return memory_.get();
  }

 private:
  std::unique_ptr<T, Free> memory_;
  std::int64_t size_ = 0;
};

template <class T>
struct Scratch {
  Buffer<T> packed, other, sums, values;
  static Scratch& mine() {
    thread_local Scratch scratch;
    return scratch;
  }
};

}  // namespace sparsemeta::SPARSEMETA_ISA
