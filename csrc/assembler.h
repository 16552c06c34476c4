// The few AVX-512 instructions that generated kernels are made of, as bytes (Intel SDM volume 2, EVEX encoding).
#pragma once

#include <cstdint>
#include <vector>

namespace sparsemeta {

enum Register : int { rax = 0, rcx = 1, rdx = 2, rbx = 3, rbp = 5, rsi = 6, rdi = 7, r8 = 8, r9 = 9, r10 = 10, r11 = 11 };

struct Memory {
  Register base;  // neither rsp nor r12, which would need another byte
  std::int64_t bytes;
};

class Assembler {
 public:
  const std::vector<std::uint8_t>& code() const { return code_; }
  std::size_t here() const { return code_.size(); }

  // A mask register k1 to k7 selects lanes: others read as zero, and are not touched in memory. 0 selects all.
  void load(int zmm, Memory m, int mask = 0) { evex(1, 0, 0x28, zmm, 0, m, 64, mask, true); }
  void load_unaligned(int zmm, Memory m, int mask = 0) { evex(1, 0, 0x10, zmm, 0, m, 64, mask, true); }
  void store(Memory m, int zmm) { evex(1, 0, 0x29, zmm, 0, m, 64); }
  void store_unaligned(Memory m, int zmm, int mask = 0) { evex(1, 0, 0x11, zmm, 0, m, 64, mask); }
  void broadcast(int zmm, Memory m) { evex(2, 1, 0x18, zmm, 0, m, 4); }
  void multiply_add(int zmm, int factor, Memory m) { evex(2, 1, 0xb8, zmm, factor, m, 64); }
  void multiply_add_scalar(int zmm, int factor, Memory m) { evex(2, 1, 0xb8, zmm, factor, m, 4, 0, false, true); }
  void move(int zmm, int from, int mask) {
    prefix(1, 0, zmm, 0, from >> 3 & 1, from >> 4 & 1, mask, true);
    bytes({0x28, register_pair(zmm, from)});
  }
  // zmm = 16 floats from `lane` on of the 32 that `low` and `high` hold.
  void align(int zmm, int low, int high, int lane, int mask = 0) {
    prefix(3, 1, zmm, high, low >> 3 & 1, low >> 4 & 1, mask, true);
    bytes({0x03, register_pair(zmm, low), lane});
  }
  void load_mask(int mask, Memory m) {  // kmovw
    bytes({0xc4, 0xc1 | (m.base < 8) << 5, 0x78, 0x90, 0x80 | mask << 3 | (m.base & 7)});
    word(m.bytes);
  }
  void prefetch(Memory m) { bytes({0x0f, 0x18}), long_memory(2, m); }            // prefetcht1
  void prefetch_for_write(Memory m) { bytes({0x0f, 0x0d}), long_memory(1, m); }  // prefetchw
  void lea(Register to, Memory m) { bytes({0x48 | (to >> 3) << 2 | m.base >> 3, 0x8d, 0x80 | (to & 7) << 3 | (m.base & 7)}), word(m.bytes); }
  void load(Register to, Memory m) { bytes({0x48 | (to >> 3) << 2 | m.base >> 3, 0x8b, 0x80 | (to & 7) << 3 | (m.base & 7)}), word(m.bytes); }
  void add(Memory m, std::int64_t n) { bytes({0x48 | m.base >> 3, 0x81, 0x80 | (m.base & 7)}), word(m.bytes), word(n); }
  void push(Register r) { bytes({0x50 | r}); }  // below r8
  void pop(Register r) { bytes({0x58 | r}); }
  void add(Memory m, Register r) { bytes({0x48 | (r >> 3) << 2 | m.base >> 3, 0x01, 0x80 | (r & 7) << 3 | (m.base & 7)}), word(m.bytes); }
  void add(Register to, Register r) { bytes({0x48 | (r >> 3) << 2 | to >> 3, 0x01, 0xc0 | (r & 7) << 3 | (to & 7)}); }
  void add(Register to, std::int64_t n) { bytes({0x48 | to >> 3, 0x81, 0xc0 | (to & 7)}), word(n); }
  void decrement(Register r) { bytes({0x48 | r >> 3, 0xff, 0xc8 | (r & 7)}); }
  void jump_if_not_zero(std::size_t target) {
    bytes({0x0f, 0x85}), relative(target);
  }
  void jump(std::size_t target) { bytes({0xe9}), relative(target); }
  void call(std::size_t target) { bytes({0xe8}), relative(target); }
  void ret() { bytes({0xc3}); }

 private:
  void bytes(std::initializer_list<int> list) {
    for (int b : list) code_.push_back(static_cast<std::uint8_t>(b));
  }
  void long_memory(int opcode, Memory m) {  // base below r8
    bytes({0x80 | opcode << 3 | (m.base & 7)});
    word(m.bytes);
  }
  void word(std::int64_t value) {
    for (int i = 0; i < 4; ++i) code_.push_back(static_cast<std::uint8_t>(value >> 8 * i));
  }
  void relative(std::size_t target) { word(static_cast<std::int64_t>(target) - static_cast<std::int64_t>(here()) - 4); }
  static int register_pair(int reg, int rm) { return 0xc0 | (reg & 7) << 3 | (rm & 7); }

  // 512-bit, W = 0; register and extension bits are stored inverted. Lanes that the mask leaves out stay, or become zero.
  void prefix(int map, int pp, int reg, int second, int b, int x, int mask, bool zero, bool scalar = false) {
    bytes({0x62, (~reg >> 3 & 1) << 7 | (x ^ 1) << 6 | (b ^ 1) << 5 | (~reg >> 4 & 1) << 4 | map, (~second & 15) << 3 | 4 | pp,
           (zero && mask ? 128 : 0) | 2 << 5 | (scalar ? 16 : 0) | (~second >> 4 & 1) << 3 | mask});
  }
  // An 8-bit displacement counts in units of the operand.
  void evex(int map, int pp, int opcode, int reg, int second, Memory m, int unit, int mask = 0, bool zero = false, bool scalar = false) {
    prefix(map, pp, reg, second, m.base >> 3, 0, mask, zero, scalar);
    const bool fits = m.bytes % unit == 0 && m.bytes / unit >= -128 && m.bytes / unit <= 127;
    bytes({opcode, (fits ? 0x40 : 0x80) | (reg & 7) << 3 | (m.base & 7)});
    if (fits) bytes({static_cast<int>(m.bytes / unit)});
    else word(m.bytes);
  }

  std::vector<std::uint8_t> code_;
};

// Executable memory: written once, then never writable again. `entry` is null where the system refuses such pages.
class Code {
 public:
  explicit Code(const std::vector<std::uint8_t>& bytes);
  ~Code();
  Code(const Code&) = delete;
  Code& operator=(const Code&) = delete;

  const std::uint8_t* entry() const { return static_cast<const std::uint8_t*>(memory_); }

 private:
  void* memory_ = nullptr;
  std::size_t size_ = 0;
};

}  // namespace sparsemeta
