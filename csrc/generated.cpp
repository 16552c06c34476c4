#include "generated.h"

#include <sys/mman.h>

#include <algorithm>
#include <tuple>

namespace sparsemeta {

Code::Code(const std::vector<std::uint8_t>& bytes) : size_(std::max<std::size_t>(bytes.size(), 1)) {
  void* memory = mmap(nullptr, size_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return;
  std::copy(bytes.begin(), bytes.end(), static_cast<std::uint8_t*>(memory));
  if (mprotect(memory, size_, PROT_READ | PROT_EXEC) == 0) memory_ = memory;
  else munmap(memory, size_);
}

Code::~Code() {
  if (memory_) munmap(memory_, size_);
}

namespace {

constexpr int lanes = 16, float_bytes = 4, vector_bytes = 64;
constexpr int most_sums = 28, low = 28, high = 29, shifted = 30;  // zmm registers: sums below, then the input
constexpr std::int64_t most_weights = 3500;                       // of a part, so that its code stays in the first-level cache

struct Weight {
  std::int64_t line, shift, out;  // shift: elements from the start of its input line
  std::int32_t source;
};

// The vector of one input line at any shift, in a register: aligned, or lanes of two neighbours that stay held.
class Input {
 public:
  explicit Input(Assembler& a) : a_(a) {}

  void next_line(Memory line) {
    a_.lea(r10, line);
    low_vector_ = high_vector_ = -1;
  }

  int at(std::int64_t shift) {
    const auto vector = shift / lanes;
    const int lane = static_cast<int>(shift % lanes);
    if (lane == 0 && high_vector_ == vector) return high;
    if (low_vector_ != vector) a_.load(low, {r10, vector * vector_bytes}), low_vector_ = vector;
    if (lane == 0) return low;
    if (high_vector_ != vector + 1) a_.load(high, {r10, (vector + 1) * vector_bytes}), high_vector_ = vector + 1;
    a_.align(shifted, low, high, lane);
    return shifted;
  }

 private:
  Assembler& a_;
  std::int64_t low_vector_ = -1, high_vector_ = -1;
};

// Emits one part: all vectors of a tile for one group of output lines and one run of input lines.
class PartEmitter {
 public:
  using Touch = GeneratedProduct::Touch;

  PartEmitter(Assembler& a, const Index& index, std::int64_t first_out, std::int64_t sums_pitch, Touch touch, std::int64_t channel)
      : a_(a), index_(index), first_out_(first_out), sums_pitch_(sums_pitch), channel_bytes_(channel * float_bytes), touch_(touch) {}

  void emit(const Weight* begin, const Weight* end, const std::vector<int>& fresh, const std::vector<int>& used) {
    a_.lea(rax, {r9, 0});
    const auto loop = a_.here();
    a_.lea(r9, {rsi, window});
    for (int out : used) open(out, fresh[static_cast<std::size_t>(out)] != 0);
    Input input(a_);
    std::int64_t line = -1;
    for (const Weight* w = begin; w != end;) {
      if (w->line != line) {
        input.next_line({rdi, (line = w->line) * index_.pitch * float_bytes});
        if (touch_ == Touch::input) a_.prefetch({rax, line * channel_bytes_});
      }
      const Weight* tap = w;
      const int x = input.at(tap->shift);
      for (; w != end && w->line == line && w->shift == tap->shift; ++w) multiply(static_cast<int>(w->out - first_out_), x);
    }
    for (int out : used) a_.store(sum(out), out);
    if (touch_ != Touch::none) a_.add(rax, vector_bytes);
    if (touch_ == Touch::output)
      for (std::int64_t line = 0; line < index_.lines_out; ++line) a_.prefetch_for_write({rax, line * channel_bytes_});
    a_.add(rdi, vector_bytes);
    a_.add(rdx, vector_bytes);
    a_.decrement(rcx);
    a_.jump_if_not_zero(loop);
    a_.ret();
  }

 private:
  static constexpr std::int64_t window = 128 * float_bytes;  // values that 8-bit displacements reach on either side

  Memory sum(int out) const { return {rdx, (first_out_ + out) * sums_pitch_ * float_bytes}; }

  void open(int out, bool fresh) {
    if (fresh) a_.broadcast(out, {r8, (first_out_ + out) * float_bytes});
    else a_.load(out, sum(out));
  }

  void multiply(int out, int x) {
    if (used_values_ && used_values_ % 256 == 0) a_.add(r9, 2 * window);
    a_.multiply_add_scalar(out, x, {r9, (used_values_++ % 256) * float_bytes - window});
  }

  Assembler& a_;
  const Index& index_;
  std::int64_t first_out_, sums_pitch_, channel_bytes_, used_values_ = 0;
  Touch touch_;
};

std::vector<Weight> weights_of(const Index& index) {
  std::vector<Weight> weights;
  for (const auto& segment : index.segments)
    for (auto j = segment.begin; j < segment.end; ++j) {
      const auto at = static_cast<std::size_t>(j);
      const auto line = index.shift[at] / index.pitch;
      weights.push_back({line, index.shift[at] - line * index.pitch, segment.line, index.source[at]});
    }
  return weights;
}

}  // namespace

GeneratedProduct::GeneratedProduct(const Index& index, std::int64_t in_channel, std::int64_t out_channel)
    : zeros_(static_cast<std::size_t>(index.lines_out), 0.0f) {
  tile_vectors_ = std::clamp<std::int64_t>(512 * 1024 / (std::max<std::int64_t>(index.lines_out, 1) * vector_bytes), 16, 32);
  sums_pitch_ = (tile_vectors_ + 1) * lanes;
  const auto groups = (index.lines_out + most_sums - 1) / most_sums;
  auto weights = weights_of(index);
  const auto group = [&](const Weight& w) { return w.out * groups / index.lines_out; };
  std::sort(weights.begin(), weights.end(), [&](const Weight& a, const Weight& b) {
    return std::tuple(group(a), a.line, a.shift, a.out) < std::tuple(group(b), b.line, b.shift, b.out);
  });
  Assembler assembler;
  for (auto w = weights.begin(); w != weights.end();) {
    const auto g = group(*w);
    const auto first_out = (g * index.lines_out + groups - 1) / groups;
    std::vector<int> fresh(most_sums + 1, 1);
    while (w != weights.end() && group(*w) == g) {  // one part after another, split between input lines
      auto end = w;
      std::vector<int> used;
      while (end != weights.end() && group(*end) == g && (end - w < most_weights || end->line == (end - 1)->line)) {
        const int out = static_cast<int>(end->out - first_out);
        if (std::find(used.begin(), used.end(), out) == used.end()) used.push_back(out);
        ++end;
      }
      const bool opens_last = g == groups - 1 && g > 0 && fresh == std::vector<int>(most_sums + 1, 1);
      const auto touch = g == 0 && in_channel ? Touch::input : opens_last && out_channel ? Touch::output : Touch::none;
      parts_.push_back({assembler.here(), static_cast<std::int64_t>(source_.size()), touch});
      const auto channel = touch == Touch::input ? in_channel : out_channel;
      PartEmitter(assembler, index, first_out, sums_pitch_, touch, channel).emit(&*w, &*w + (end - w), fresh, used);
      for (int out : used) fresh[static_cast<std::size_t>(out)] = 0;
      for (; w != end; ++w) source_.push_back(w->source);
    }
  }
  code_ = std::make_unique<Code>(assembler.code());
}

GeneratedCorrelation::GeneratedCorrelation(const Index& index, std::int64_t g_pitch) {
  // Long tiles, because every tile loads and stores the sums; then few lines of g, which share the first-level cache.
  tile_vectors_ = 32;
  constexpr std::int64_t group_lines = 16;
  const auto groups = std::max<std::int64_t>(1, (index.lines_out + group_lines - 1) / group_lines);
  auto weights = weights_of(index);
  const auto order = [&](const Weight& w) {
    return std::tuple(w.line / index.block_lines, w.out * groups / index.lines_out, w.line, w.shift, w.out);
  };
  std::sort(weights.begin(), weights.end(), [&](const Weight& a, const Weight& b) { return order(a) < order(b); });
  Assembler a;
  auto w = weights.begin();
  for (std::int64_t block = 0; block < index.blocks(); ++block) {
    parts_.push_back({a.here(), static_cast<std::int64_t>(source_.size()), GeneratedProduct::Touch::none});
    std::int64_t done = 0;
    while (w != weights.end() && w->line / index.block_lines == block) {
      auto end = w;
      while (end != weights.end() && end - w < most_sums && end->line / index.block_lines == block) ++end;
      const int n = static_cast<int>(end - w);
      for (int i = 0; i < n; ++i) a.load(i, {rdx, (done + i) * vector_bytes});
      a.lea(r8, {rdi, 0});
      a.lea(r11, {rsi, 0});
      a.lea(rax, {rcx, 0});
      const auto loop = a.here();
      Input input(a);
      std::int64_t line = -1;
      for (int i = 0; i < n;) {
        if (w->line != line) input.next_line({r8, (line = w->line) * index.pitch * float_bytes});
        const auto shift = w->shift;
        const int x = input.at(shift);
        for (; i < n && w->line == line && w->shift == shift; ++w, ++i) {
          a.multiply_add(i, x, {r11, w->out * g_pitch * float_bytes});
          source_.push_back(w->source);
        }
      }
      a.add(r8, vector_bytes);
      a.add(r11, vector_bytes);
      a.decrement(rax);
      a.jump_if_not_zero(loop);
      for (int i = 0; i < n; ++i) a.store({rdx, (done + i) * vector_bytes}, i);
      done += n;
    }
    a.ret();
  }
  code_ = std::make_unique<Code>(a.code());
}

}  // namespace sparsemeta
