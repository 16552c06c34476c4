#include "conv_source.h"

#include <algorithm>
#include <sstream>

#include "conv_table.h"

namespace sparsemeta::cuda {
namespace {

constexpr std::size_t kPiece = 256;  // products without a jump: compilers take more than twice as long for twice as many

struct Product {
  std::int32_t slot, row, source;
};

// The products of a chunk, so that each input is loaded once for all outputs of the group that keep a weight there.
std::vector<Product> products_of(const Table& t, const Chunk& c) {
  std::vector<Product> products;
  const std::int32_t* source = t.sources() + c.value;
  for (int w = 0; w < t.warps; ++w)
    for (int i = c.warp_tap[w]; i < c.warp_tap[w + 1]; ++i)
      for (int row = 0; row < kRows; ++row)
        if (const Tap& tap = t.taps()[c.tap + i]; tap.rows >> row & 1) products.push_back({tap.slot, w * kRows + row, *source++});
  std::stable_sort(products.begin(), products.end(), [](const Product& a, const Product& b) { return a.slot < b.slot; });
  return products;
}

class Writer {
 public:
  Writer(std::vector<std::int32_t>& table, int pixels) : table_(table), pixels_(pixels) {}

  std::string write() {
    const Table& t = as_table(table_);
    for (int i = 0; i < t.all_chunks; ++i) add_chunk(i, t.chunk(i));
    const int rows = std::min(t.outputs, t.warps * kRows);
    std::ostringstream out;
    out << "#include \"generated_conv2d.h\"\n\n" << macros() << "\nnamespace sparsemeta::cuda {\n\nstruct Code {\n"
        << "  static constexpr int rows = " << rows << ", pixels = " << pixels_ << ";\n\n  template <class Registers>\n"
        << "  SPARSEMETA_KERNEL static void run(int chunk, const float* values, const float* input, Registers& r) {\n"
        << sums(rows, true) << "    Quad w{};\n    const char* base = reinterpret_cast<const char*>(input);\n    float "
        << each("in#") << ";\n    const int " << each("at# = r.slot[#]") << ";\n    int piece = 0, end = 0;\n    switch (chunk) {\n"
        << ranges_.str() << "    }\n    for (; piece < end; ++piece)\n      switch (piece) {" << pieces_.str() << "\n      }\n"
        << sums(rows, false) << "  }\n};\n\n}  // namespace sparsemeta::cuda\n\nSPARSEMETA_GENERATED(SPARSEMETA_ELEMENT)\n";
    return out.str();
  }

 private:
  // X: the input at an offset in bytes, for each pixel. Q: four values. S: one of the last three. M: its product.
  std::string macros() const {
    return "#define X(offset) " + each("in# = *reinterpret_cast<const float*>(base + (at# + offset))", "; ") + ";\n" +
           "#define Q(quad) w = reinterpret_cast<const Quad*>(values)[quad];\n#define S(which, value) w.which = values[value];\n" +
           "#define M(row, which) " + each("s##row##_# += w.which * in#", "; ") + ";\n";
  }

  // The text for every pixel, whose number takes the place of a single #.
  std::string each(const std::string& text, const std::string& between = ", ") const {
    std::string all;
    for (int k = 0; k < pixels_; ++k) {
      if (k) all += between;
      for (std::size_t i = 0; i < text.size(); ++i) {
        if (text.compare(i, 2, "##") == 0) all += text.substr(i++, 2);
        else if (text[i] == '#') all += std::to_string(k);
        else all += text[i];
      }
    }
    return all;
  }

  // Sums are local variables while code runs: as elements of an array they take a compiler three times as long.
  std::string sums(int rows, bool begin) const {
    std::string text;
    for (int row = 0; row < rows; ++row) {
      const std::string name = "s" + std::to_string(row) + "_#", sum = "r.sum[" + std::to_string(row) + "][#]";
      text += begin ? "    float " + each(name + " = " + sum) + ";\n" : "    " + each(sum + " = " + name) + ";\n";
    }
    return text;
  }

  void add_chunk(int i, const Chunk& c) {
    const std::vector<Product> products = products_of(as_table(table_), c);
    std::int32_t* const sources = table_.data() + as_table(table_).at_sources + c.value;
    for (std::size_t j = 0; j < products.size(); ++j) sources[j] = products[j].source;
    ranges_ << "      case " << i << ": piece = " << count_;
    for (std::size_t begin = 0; begin < products.size(); begin += kPiece) {
      pieces_ << "\n        case " << count_++ << ": ";
      for (std::size_t j = begin; j < std::min(begin + kPiece, products.size()); ++j) add_product(products, j, j == begin);
      pieces_ << "break;";
    }
    ranges_ << ", end = " << count_ << "; break;\n";
  }

  void add_product(const std::vector<Product>& all, std::size_t j, bool first) {
    const char which = "xyzw"[j % 4];
    if (first || all[j].slot != all[j - 1].slot) pieces_ << "\n          X(" << all[j].slot << ") ";
    if (j >= all.size() / 4 * 4) pieces_ << "S(" << which << ", " << j << ") ";
    else if (j % 4 == 0) pieces_ << "Q(" << j / 4 << ") ";
    pieces_ << "M(" << all[j].row << ", " << which << ") ";
  }

  std::vector<std::int32_t>& table_;
  int pixels_, count_ = 0;
  std::ostringstream ranges_, pieces_;
};

}  // namespace

std::string write_source(std::vector<std::int32_t>& table, int pixels) { return Writer(table, pixels).write(); }

std::map<std::string, std::string> source_headers() {
  return {
#include "embedded_headers.inc"
  };
}

}  // namespace sparsemeta::cuda
