// The part of CUDA's runtime that docs/examples/check_engine.cpp uses, on the memory of the host.
#pragma once
#include <cstdlib>

enum cudaError_t { cudaSuccess = 0, cudaErrorMemoryAllocation = 2 };
constexpr unsigned cudaMemAttachGlobal = 1;
inline cudaError_t cudaMallocManaged(void** place, std::size_t size, unsigned) {
  *place = std::malloc(size);
  return *place == nullptr ? cudaErrorMemoryAllocation : cudaSuccess;
}
inline cudaError_t cudaFree(void* place) { return (std::free(place), cudaSuccess); }
inline cudaError_t cudaStreamSynchronize(struct CUstream_st*) { return cudaSuccess; }
