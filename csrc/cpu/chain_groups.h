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

// Groups that stay in the second-level cache from stage to stage, one thread for each; few images are one group of all threads.
class Groups {
 public:
  Groups(std::int64_t images, std::int64_t image_bytes, int threads) : images_(images), threads_(threads), shared_(threads > 1 && images < 8 * threads) {
    const auto fit = std::max<std::int64_t>((images * image_bytes + cache_bytes - 1) / cache_bytes, 1);
    count_ = shared_ ? 1 : std::clamp<std::int64_t>((fit + threads - 1) / threads * threads, 1, std::max<std::int64_t>(images, 1));
  }

  std::int64_t largest() const { return (images_ + count_ - 1) / count_; }
  std::int64_t at_once() const { return shared_ ? images_ : threads_ * largest(); }  // images whose memory is in use together

  template <class F>
  void each(F f) const {
    if (shared_) return f(Group{0, images_, 0, threads_});
#pragma omp parallel for num_threads(threads_) schedule(static)
    for (std::int64_t g = 0; g < count_; ++g) {
      const auto first = images_ * g / count_;
      f(Group{first, images_ * (g + 1) / count_ - first, omp_get_thread_num(), 1});
    }
  }

 private:
  static constexpr std::int64_t cache_bytes = 512 * 1024;  // of one array of a stage, which has about three

  std::int64_t images_, count_;
  int threads_;
  bool shared_;
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
