// The part of TensorRT 10's C++ interface that docs/examples/check_engine.cpp uses, with an engine that doubles its
// input `x`, and adds what OFF says to the second element. Not NVIDIA's header: names and types are those of its
// documentation.
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <map>
#include <string>

struct CUstream_st;

namespace nvinfer1 {
struct Dims {
  int32_t nbDims;
  int64_t d[8];
};
enum class DataType : int32_t { kFLOAT = 0, kHALF = 1 };
class ILogger {
 public:
  enum class Severity : int32_t { kINTERNAL_ERROR = 0, kERROR = 1, kWARNING = 2, kINFO = 3, kVERBOSE = 4 };
  virtual void log(Severity severity, const char* text) noexcept = 0;
  virtual ~ILogger() = default;
};
class IExecutionContext {
 public:
  bool setInputShape(const char*, const Dims& shape) { return (shape_ = shape, shape.nbDims == 2); }
  bool setTensorAddress(const char* name, void* data) { return (places_[name] = static_cast<float*>(data)); }
  Dims getTensorShape(const char*) const { return shape_; }
  bool enqueueV3(CUstream_st*) {
    const char* off = std::getenv("OFF");
    for (int64_t i = 0; i < shape_.d[0] * shape_.d[1]; ++i) places_.at("y")[i] = 2 * places_.at("x")[i];
    places_.at("y")[1] += off == nullptr ? 0.0F : std::strtof(off, nullptr);
    return true;
  }

 private:
  Dims shape_{};
  std::map<std::string, float*> places_;
};
class ICudaEngine {
 public:
  IExecutionContext* createExecutionContext() { return new IExecutionContext; }
  DataType getTensorDataType(const char*) const { return DataType::kFLOAT; }
};
class IRuntime {
 public:
  void setDLACore(int32_t) {}
  void setEngineHostCodeAllowed(bool) {}
  ICudaEngine* deserializeCudaEngine(const void*, std::size_t size) { return size > 0 ? new ICudaEngine : nullptr; }
};
inline IRuntime* createInferRuntime(ILogger&) { return new IRuntime; }
}  // namespace nvinfer1
