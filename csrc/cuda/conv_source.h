// Writes the code of a table (conv_index.h): CUDA C++ in which every tap is a statement, for generated_conv2d.h.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "conv_index.h"

namespace sparsemeta::cuda {

// Puts the values of each chunk into the order in which the code uses them. `pixels`: of a thread.
std::string write_source(std::vector<std::int32_t>& table, int pixels);

// What the source includes, by name.
std::map<std::string, std::string> source_headers();

}  // namespace sparsemeta::cuda
