// How the images of a batch are taken through the stages between two statistics of the batch.
#pragma once

#include <omp.h>

#include <algorithm>
#include <cstdint>

#include "../chain.h"

namespace sparsemeta::SPARSEMETA_ISA {

// Images [first, first + count) in the memory of slot `slot`, for `threads` threads from `slot` on.
struct Group {
  std::int64_t first, count;
  int slot, threads;
};

// Groups that stay in the second-level cache from stage to stage, one thread for each. Few images are one group of all threads,
// and so are large images that are left over when every thread has as many as the others.
class Groups {
 public:
  Groups(std::int64_t images, std::int64_t image_bytes, int threads)
      : images_(images), apart_(threads > 1 && images < 8 * threads ? 0 : image_bytes < large_bytes ? images : images / threads * threads), threads_(threads) {
    const auto fit = (apart_ * image_bytes + cache_bytes - 1) / cache_bytes;
    count_ = std::min((fit + threads - 1) / threads * threads, apart_);
  }

  std::int64_t largest() const { return count_ ? (apart_ + count_ - 1) / count_ : images_; }
  std::int64_t at_once() const { return count_ ? threads_ * largest() : images_; }  // images whose memory is in use together

  template <class F>
  void each(F f) const {
#pragma omp parallel for num_threads(count_ ? threads_ : 1) schedule(static)
    for (std::int64_t g = 0; g < count_; ++g) {
      const auto first = apart_ * g / count_;
      f(Group{first, apart_ * (g + 1) / count_ - first, omp_get_thread_num(), 1});
    }
    if (apart_ < images_) f(Group{apart_, images_ - apart_, 0, threads_});
  }

 private:
  static constexpr std::int64_t cache_bytes = 512 * 1024;  // of one array of a stage, which has about three
  static constexpr std::int64_t large_bytes = 128 * 1024;  // of one image, from which waking all threads for each stage is worth it

  std::int64_t images_, apart_, count_;
  int threads_;
};

// For the stages around the convolution of block l; of a chain of one block, around that.
template <class T>
Groups chain_groups(const Chain& chain, std::size_t l, std::int64_t images, std::int64_t copies, int threads) {
  const auto& block = chain.blocks[std::min(l, chain.blocks.size() - 1)];
  return {images, copies * block.channels() * block.plane() * static_cast<std::int64_t>(sizeof(T)), threads};
}

// Calls f(image, i, slot) for the images of a group and i in [0, n), with the group's threads where the work is worth waking them.
template <class F>
void over_images(const Group& group, std::int64_t n, bool large, F f) {
#pragma omp parallel for collapse(2) num_threads(large ? group.threads : 1) schedule(static)
  for (std::int64_t image = group.first; image < group.first + group.count; ++image)
    for (std::int64_t i = 0; i < n; ++i) f(image, i, group.slot + (group.threads > 1 ? omp_get_thread_num() : 0));
}

}  // namespace sparsemeta::SPARSEMETA_ISA
