#include "generated.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstddef>
#include <map>
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
constexpr int resident_masks = 6, other_mask = 7;                 // mask registers: 1 to 6 hold a tap's mask for a vector, 7 any
constexpr std::int64_t most_weights = 3500;                       // of a part, so that its code stays in the first-level cache

using Weights = std::vector<Weight>::const_iterator;

std::int64_t floor_div(std::int64_t a, std::int64_t b) { return (a - (a < 0 ? b - 1 : 0)) / b; }

// The masks of a vector's taps: those that most weights want stay in registers, others are loaded when their turn comes.
class Masks {
 public:
  Masks(Assembler& a, Register row, Weights begin, Weights end) : a_(a), row_(row) {
    std::map<std::int32_t, std::int64_t> uses;
    for (auto w = begin; w != end; ++w)
      if (w->mask) ++uses[w->mask];
    std::vector<std::pair<std::int64_t, std::int32_t>> order;
    for (const auto& [mask, count] : uses) order.push_back({-count, mask});
    std::sort(order.begin(), order.end());
    for (const auto& [count, mask] : order)
      if (static_cast<int>(held_.size()) < resident_masks) held_[mask] = static_cast<int>(held_.size()) + 1;
  }

  void next_vector() {
    for (const auto& [mask, k] : held_) load(k, mask);
    other_ = -1;
  }

  // The register with a tap's mask; 0 for the tap that reads its own position.
  int at(std::int32_t mask) {
    if (!mask) return 0;
    if (const auto found = held_.find(mask); found != held_.end()) return found->second;
    return load_other(mask);
  }

  int inside() { return load_other(0); }

 private:
  int load_other(std::int32_t mask) {
    if (other_ != mask) load(other_mask, mask), other_ = mask;
    return other_mask;
  }
  void load(int k, std::int32_t mask) { a_.load_mask(k, {row_, mask * static_cast<std::int64_t>(sizeof(std::uint16_t))}); }

  Assembler& a_;
  Register row_;
  std::map<std::int32_t, int> held_;
  std::int32_t other_ = -1;
};

// A vector of an input line at any shift, in a register: aligned, or lanes of two neighbours that stay held.
class Input {
 public:
  // Register x holds line 0; the operands of the code are at rdi.
  Input(Assembler& a, const Layout& layout, Register x, std::size_t first, std::size_t last)
      : a_(a), layout_(layout), x_(x), first_(static_cast<std::int64_t>(first)), last_(static_cast<std::int64_t>(last)) {}

  // The address of `line`, to register r10; where it does not start at a whole vector, the rest goes into the shifts.
  void next_line(std::int64_t line) {
    const auto start = line * layout_.pitch_in;
    const auto bytes = floor_div(start, lanes) * vector_bytes;
    offset_ = start - floor_div(start, lanes) * lanes;
    low_vector_ = high_vector_ = none;
    if (line < layout_.edge) a_.load(r10, {rdi, first_}), a_.add(r10, bytes);
    else if (line >= layout_.lines_in - layout_.edge) a_.load(r10, {rdi, last_}), a_.add(r10, bytes);
    else a_.lea(r10, {x_, bytes});
  }

  int at(std::int64_t shift, int mask) {
    const auto vector = floor_div(shift + offset_, lanes);
    const int lane = static_cast<int>(shift + offset_ - vector * lanes);
    if (lane == 0) return whole(vector, mask);
    if (low_vector_ != vector) a_.load(low, at_vector(vector)), low_vector_ = vector;
    if (high_vector_ != vector + 1) a_.load(high, at_vector(vector + 1)), high_vector_ = vector + 1;
    a_.align(shifted, low, high, lane, mask);
    return shifted;
  }

 private:
  static constexpr std::int64_t none = INT64_MIN / 2;

  int whole(std::int64_t vector, int mask) {
    if (mask) return a_.load(shifted, at_vector(vector), mask), shifted;
    if (high_vector_ == vector) return high;
    if (low_vector_ != vector) a_.load(low, at_vector(vector)), low_vector_ = vector;
    return low;
  }
  Memory at_vector(std::int64_t vector) const { return {r10, vector * vector_bytes}; }

  Assembler& a_;
  const Layout& layout_;
  Register x_;
  std::int64_t first_, last_, offset_ = 0, low_vector_ = none, high_vector_ = none;
};

// A cache line that code brings in while it computes.
struct Touch {
  Memory at;
  bool written;
};

// Emits one part: all vectors of a tile, for one group of output lines and one run of input lines.
class PartEmitter {
 public:
  PartEmitter(Assembler& a, const Layout& layout, std::int64_t first_out, std::vector<Touch> touches)
      : a_(a), layout_(layout), first_out_(first_out), touches_(std::move(touches)) {}

  // `used`: lines of the group that the part adds to; `fresh`: no part did before.
  void emit(Weights begin, Weights end, bool fresh, const std::vector<int>& used) {
    using O = ProductOperands;
    for (auto r : {rbx, rbp}) a_.push(r);
    a_.load(rax, operand(offsetof(O, x)));
    a_.load(rsi, operand(offsetof(O, values)));
    a_.load(rdx, operand(offsetof(O, y)));
    a_.load(r11, operand(offsetof(O, masks)));
    a_.load(r8, operand(offsetof(O, bias)));
    a_.load(rcx, operand(offsetof(O, vectors)));
    a_.load(rbx, operand(offsetof(O, next)));
    a_.load(rbp, operand(offsetof(O, out)));
    const auto loop = a_.here();
    a_.lea(r9, {rsi, window});
    Masks masks(a_, r11, begin, end);
    masks.next_vector();
    for (int out : used) open(out, fresh, masks);
    sum(begin, end, masks);
    while (!touches_.empty()) touch();
    for (int out : used) close(out, masks);
    next_vector();
    a_.decrement(rcx);
    a_.jump_if_not_zero(loop);
    for (auto r : {rbp, rbx}) a_.pop(r);
    a_.ret();
  }

 private:
  static constexpr std::int64_t window = 128 * float_bytes;  // values that 8-bit displacements reach on either side

  static Memory operand(std::size_t offset) { return {rdi, static_cast<std::int64_t>(offset)}; }
  Memory line(int out) const { return {rdx, (first_out_ + out) * layout_.pitch_out * float_bytes}; }

  void open(int out, bool fresh, Masks& masks) {
    if (fresh) a_.broadcast(out, {r8, (first_out_ + out) * float_bytes});
    else if (layout_.mask_row) a_.load_unaligned(out, line(out), masks.inside());
    else a_.load(out, line(out));
  }

  void close(int out, Masks& masks) {
    if (layout_.mask_row) a_.store_unaligned(line(out), out, masks.inside());
    else a_.store(line(out), out);
  }

  void sum(Weights begin, Weights end, Masks& masks) {
    Input input(a_, layout_, rax, offsetof(ProductOperands, first), offsetof(ProductOperands, last));
    std::int64_t line = -1;
    for (auto w = begin; w != end;) {
      if (w->line != line) {
        input.next_line(line = w->line);
        if (!touches_.empty()) touch();
      }
      const auto tap = w;
      const int x = input.at(tap->shift, masks.at(tap->mask));
      for (; w != end && w->line == line && w->shift == tap->shift && w->mask == tap->mask; ++w)
        multiply(static_cast<int>(w->out - first_out_), x);
    }
  }

  void touch() {
    const auto [at, written] = touches_.back();
    touches_.pop_back();
    written ? a_.prefetch_for_write(at) : a_.prefetch(at);
  }

  void multiply(int out, int x) {
    if (used_values_ && used_values_ % 256 == 0) a_.add(r9, 2 * window);
    a_.multiply_add_scalar(out, x, {r9, (used_values_++ % 256) * float_bytes - window});
  }

  void next_vector() {
    for (auto r : {rax, rdx, rbx, rbp}) a_.add(r, vector_bytes);
    if (layout_.mask_row) a_.add(r11, layout_.mask_row * static_cast<std::int64_t>(sizeof(std::uint16_t)));
    if (layout_.edge) {
      a_.add(operand(offsetof(ProductOperands, first)), vector_bytes);
      a_.add(operand(offsetof(ProductOperands, last)), vector_bytes);
    }
  }

  Assembler& a_;
  const Layout& layout_;
  std::int64_t first_out_, used_values_ = 0;
  std::vector<Touch> touches_;
};

// A share of all lines, one by one between multiply-adds: memory is asked at an even rate, never for many lines at once.
std::vector<Touch> touches_of(const Layout& layout, bool written, std::int64_t begin, std::int64_t end, std::int64_t all) {
  std::vector<Touch> touches;
  const auto share = [&](Register base, std::int64_t lines, std::int64_t pitch, bool written) {
    if (pitch)
      for (auto line = lines * begin / all; line < lines * end / all; ++line) touches.push_back({{base, line * pitch * float_bytes}, written});
  };
  share(rbx, layout.lines_in, layout.touch_in, false);
  share(rbp, layout.lines_out, layout.touch_out, written);
  return touches;
}

// Emits the parts of a weight gradient: the sums of a part's weights stay in registers over the vectors of a tile.
class CorrelationEmitter {
 public:
  // Every part calls the code that loads and stores the sums: what is executed once for a tile comes from far away.
  CorrelationEmitter(Assembler& a, const Layout& layout) : a_(a), layout_(layout), load_(a.here()) {
    for (int i = 0; i < most_sums; ++i) a_.load(i, sum(i));
    a_.ret();
    store_ = a_.here();
    for (int i = 0; i < most_sums; ++i) a_.store(sum(i), i);
    a_.ret();
  }

  void emit(Weights begin, Weights end, const std::vector<Touch>& touches) {
    using O = CorrelationOperands;
    for (auto r : {rbx, rbp}) a_.push(r);
    a_.load(rdx, operand(offsetof(O, before)));
    a_.call(load_);
    a_.load(rax, operand(offsetof(O, x)));
    a_.load(rsi, operand(offsetof(O, g)));
    a_.load(rbx, operand(offsetof(O, next)));
    a_.load(rbp, operand(offsetof(O, next_g)));
    a_.load(r9, operand(offsetof(O, images)));
    first_out_ = std::min_element(begin, end, [](const Weight& a, const Weight& b) { return a.out < b.out; })->out;
    a_.lea(r8, {rsi, (first_out_ + near_lines + near_lines / 2) * line_bytes()});
    a_.add(rsi, (first_out_ + near_lines / 2) * line_bytes());
    const bool edge = std::any_of(begin, end, [&](const Weight& w) { return w.line < layout_.edge || w.line >= layout_.lines_in - layout_.edge; });
    const auto images = a_.here();
    a_.load(r11, operand(offsetof(O, masks)));
    a_.load(rcx, operand(offsetof(O, vectors)));
    const auto vectors = a_.here();
    Masks masks(a_, r11, begin, end);
    masks.next_vector();
    correlate(begin, end, masks, touches);
    next_vector(edge);
    a_.decrement(rcx);
    a_.jump_if_not_zero(vectors);
    next_image(edge);
    a_.decrement(r9);
    a_.jump_if_not_zero(images);
    a_.load(rdx, operand(offsetof(O, sums)));
    a_.call(store_);
    for (auto r : {rbp, rbx}) a_.pop(r);
    a_.ret();
  }

 private:
  static constexpr std::int64_t near_lines = 9;  // lines of g that 8-bit displacements reach from one register

  static Memory operand(std::size_t offset) { return {rdi, static_cast<std::int64_t>(offset)}; }
  static Memory sum(int i) { return {rdx, i * vector_bytes}; }
  std::int64_t line_bytes() const { return layout_.pitch_out * float_bytes; }

  Memory g(std::int64_t out) const {
    const auto line = out - first_out_ - near_lines / 2;
    return line <= near_lines / 2 ? Memory{rsi, line * line_bytes()} : Memory{r8, (line - near_lines) * line_bytes()};
  }

  void correlate(Weights begin, Weights end, Masks& masks, const std::vector<Touch>& touches) {
    Input input(a_, layout_, rax, offsetof(CorrelationOperands, first), offsetof(CorrelationOperands, last));
    std::int64_t line = -1;
    std::size_t touched = 0;
    int sum = 0;
    for (auto w = begin; w != end;) {
      if (w->line != line) input.next_line(line = w->line);
      const auto tap = w;
      const int x = input.at(tap->shift, masks.at(tap->mask));
      for (; w != end && w->line == line && w->shift == tap->shift && w->mask == tap->mask; ++w) {
        a_.multiply_add(sum++, x, g(w->out));
        for (; touched < touches.size() * static_cast<std::size_t>(sum) / static_cast<std::size_t>(end - begin); ++touched) a_.prefetch(touches[touched].at);
      }
    }
  }

  void next_vector(bool edge) {
    for (auto r : {rax, rsi, r8, rbx, rbp}) a_.add(r, vector_bytes);
    if (layout_.mask_row) a_.add(r11, layout_.mask_row * static_cast<std::int64_t>(sizeof(std::uint16_t)));
    if (!edge) return;
    a_.add(operand(offsetof(CorrelationOperands, first)), vector_bytes);
    a_.add(operand(offsetof(CorrelationOperands, last)), vector_bytes);
  }

  void next_image(bool edge) {
    a_.load(r10, operand(offsetof(CorrelationOperands, step_g)));
    a_.add(rbp, r10);
    a_.load(r10, operand(offsetof(CorrelationOperands, step)));
    for (auto r : {rax, rbx}) a_.add(r, r10);
    if (!edge) return;
    a_.add(operand(offsetof(CorrelationOperands, first)), r10);
    a_.add(operand(offsetof(CorrelationOperands, last)), r10);
  }

  Assembler& a_;
  const Layout& layout_;
  std::size_t load_, store_ = 0;
  std::int64_t first_out_ = 0;
};

}  // namespace

std::vector<Weight> packed_weights(const Index& index) {
  std::vector<Weight> weights;
  for (const auto& segment : index.segments)
    for (auto j = segment.begin; j < segment.end; ++j) {
      const auto at = static_cast<std::size_t>(j);
      const auto line = index.shift[at] / index.pitch;
      weights.push_back({line, index.shift[at] - line * index.pitch, segment.line, 0, index.source[at], 0});
    }
  return weights;
}

GeneratedProduct::GeneratedProduct(std::vector<Weight> weights, const Layout& layout) : zeros_(static_cast<std::size_t>(layout.lines_out), 0.0f) {
  const auto groups = (layout.lines_out + most_sums - 1) / most_sums;
  const auto begins = [&](std::int64_t g) { return (g * layout.lines_out + groups - 1) / groups; };
  const auto group = [&](const Weight& w) { return w.out * groups / layout.lines_out; };
  std::sort(weights.begin(), weights.end(), [&](const Weight& a, const Weight& b) {
    return std::tuple(group(a), a.line, a.shift, a.mask, a.out) < std::tuple(group(b), b.line, b.shift, b.mask, b.out);
  });
  Assembler assembler;
  Weights w = weights.begin(), none = weights.end();
  for (std::int64_t g = 0; g < groups; ++g) {
    group_begin_.push_back(parts());
    bool fresh = true;
    do {  // one part after another, split between input lines
      auto end = w;
      std::vector<bool> used(static_cast<std::size_t>(begins(g + 1) - begins(g)), fresh);  // the first part writes every line
      for (; end != none && group(*end) == g && (end - w < most_weights || end->line == (end - 1)->line); ++end)
        used[static_cast<std::size_t>(end->out - begins(g))] = true;
      std::vector<int> lines;
      for (std::size_t i = 0; i < used.size(); ++i)
        if (used[i]) lines.push_back(static_cast<int>(i));
      parts_.push_back({assembler.here(), static_cast<std::int64_t>(source_.size())});
      PartEmitter(assembler, layout, begins(g), fresh ? touches_of(layout, true, g, g + 1, groups) : std::vector<Touch>{}).emit(w, end, fresh, lines);
      fresh = false;
      for (; w != end; ++w) source_.push_back(w->source);
    } while (w != none && group(*w) == g);
  }
  group_begin_.push_back(parts());
  code_ = std::make_unique<Code>(assembler.code());
}

GeneratedCorrelation::GeneratedCorrelation(std::vector<Weight> weights, const Layout& layout, std::int64_t block_lines) {
  constexpr std::int64_t group_lines = 16;  // few lines of g, which share the first-level cache
  const auto groups = std::max<std::int64_t>(1, (layout.lines_out + group_lines - 1) / group_lines);
  const auto begins = [&](std::int64_t g) { return (g * layout.lines_out + groups - 1) / groups; };
  // Many weights for each line: row by row of the kernel, so that a part has few masks to load. Few: all of a line together.
  const bool by_row = static_cast<std::int64_t>(weights.size()) * group_lines * 2 >= most_weights * layout.lines_out * layout.lines_in;
  const auto order = [&](const Weight& w) {
    return std::tuple(w.line / block_lines, w.out * groups / layout.lines_out, by_row ? w.row : 0, w.line, w.shift, w.mask, w.out);
  };
  std::sort(weights.begin(), weights.end(), [&](const Weight& a, const Weight& b) { return order(a) < order(b); });
  Assembler a;
  CorrelationEmitter emitter(a, layout);
  Weights w = weights.begin(), none = weights.end();
  const auto all = static_cast<std::int64_t>(weights.size());
  const auto place = [&](Weights at) { return static_cast<std::int64_t>(at - weights.begin()); };
  for (std::int64_t block = 0; block * block_lines < layout.lines_in; ++block) {
    block_begin_.push_back(static_cast<std::int64_t>(parts_.size()));
    while (w != none && w->line / block_lines == block) {
      const auto group = w->out * groups / layout.lines_out, first = static_cast<std::int64_t>(parts_.size());
      const auto mine = [&](const Weight& v) { return v.line / block_lines == block && v.out * groups / layout.lines_out == group; };
      while (w != none && mine(*w)) {
        parts_.push_back({a.here(), static_cast<std::int64_t>(source_.size())});
        auto end = w;
        for (; end != none && end - w < most_weights && mine(*end); ++end) source_.push_back(end->source);
        emitter.emit(w, end, touches_of(layout, false, place(w), place(end), all));
        w = end;
      }
      groups_.push_back({begins(group), begins(group + 1), first, static_cast<std::int64_t>(parts_.size())});
    }
  }
  block_begin_.push_back(static_cast<std::int64_t>(parts_.size()));
  parts_.push_back({a.here(), static_cast<std::int64_t>(source_.size())});
  code_ = std::make_unique<Code>(a.code());
}

}  // namespace sparsemeta
