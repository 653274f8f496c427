// Check an engine where it runs, without Python: run it on the samples recorded beside it, compare the outputs.
//
//     g++ -std=c++17 -I<folder of scons_tensorrt/>/include check_engine.cpp -lnvinfer -lcudart -o check_engine
//     ./check_engine /usr/share/engines/face__sm87_jp6.2_trt10.3_fp16.engine
//
// Exit status: 0 if every output is within its bound, 1 if one is not or the engine cannot be run. For float32
// outputs of fixed shape, the first optimization profile, and metric "elemwise". TensorRT 10 or later.
#include <NvInfer.h>
#include <cuda_runtime_api.h>

#include <cmath>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <iterator>
#include <map>
#include <memory>

#include <scons_tensorrt/verified_engine.hpp>

using Memory = std::unique_ptr<void, cudaError_t (*)(void*)>;

struct Logger : nvinfer1::ILogger {
  void log(Severity severity, const char* text) noexcept override {
    if (severity <= Severity::kERROR) std::fprintf(stderr, "%s\n", text);
  }
};

static void require(bool met, const std::string& otherwise) {
  if (!met) throw std::runtime_error(otherwise);
}

struct Array {
  std::string head, bytes;  // of a .npy

  nvinfer1::Dims shape() const {
    nvinfer1::Dims dims{};
    const char* at = head.c_str() + head.find("'shape': (") + 10;
    for (char* end = nullptr; *at != ')'; at = end + 1) dims.d[dims.nbDims++] = std::strtol(at, &end, 10);
    return dims;
  }
  template <typename Number>
  Number at(std::size_t index) const {
    Number value;
    std::memcpy(&value, bytes.data() + index * sizeof value, sizeof value);
    return value;
  }
};

// The members of an .npz that is not compressed, by name.
static std::map<std::string, Array> read_recorded(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  const std::string data((std::istreambuf_iterator<char>(file)), {});
  const auto number = [&data](std::size_t at, std::size_t count) {
    std::size_t value = 0;
    while (count-- > 0) value = value << 8 | static_cast<unsigned char>(data.at(at + count));
    return value;
  };
  std::map<std::string, Array> found;
  for (std::size_t at = 0; data.compare(at, 4, "PK\3\4") == 0;) {
    const std::size_t size = number(at + 18, 4), name = number(at + 26, 2);
    const std::size_t body = at + 30 + name + number(at + 28, 2), head = 10 + number(body + 8, 2);
    found[data.substr(at + 30, name - 4)] = {data.substr(body, head), data.substr(body + head, size - head)};
    at = body + size;
  }
  require(found.count("options/metric") == 1, path + ": missing or damaged");
  require(found["options/metric"].bytes == "elemwise", path + ": another metric than elemwise");
  return found;
}

static Memory allocate(const Array& array) {
  void* address = nullptr;
  require(cudaMallocManaged(&address, array.bytes.size() + 1, cudaMemAttachGlobal) == cudaSuccess, "no memory");
  std::memcpy(address, array.bytes.data(), array.bytes.size());
  return {address, cudaFree};
}

static bool check(const std::string& path) {
  auto recorded = read_recorded(path + ".recorded.npz");
  const double atol = recorded["options/atol"].at<double>(0), rtol = recorded["options/rtol"].at<double>(0);
  const auto plan = scons_tensorrt::load_verified(path);  // the bytes that were hashed are loaded
  Logger logger;
  std::unique_ptr<nvinfer1::IRuntime> runtime(nvinfer1::createInferRuntime(logger));
  if (recorded.count("options/dla_core") == 1) runtime->setDLACore(recorded["options/dla_core"].at<int>(0));
  if (recorded.count("options/host_code") == 1) runtime->setEngineHostCodeAllowed(true);
  std::unique_ptr<nvinfer1::ICudaEngine> engine(runtime->deserializeCudaEngine(plan.data(), plan.size()));
  require(engine != nullptr, "TensorRT cannot load the engine");
  std::unique_ptr<nvinfer1::IExecutionContext> context(engine->createExecutionContext());
  bool good = true;
  for (auto each = recorded.begin(); each->first.compare(0, 8, "options/") != 0;) {
    const std::string sample = each->first.substr(0, 4);
    std::map<std::string, Memory> memory;
    const auto first = each;
    for (; each->first.compare(0, 4, sample) == 0; ++each) {  // inputs come first
      const bool input = each->first[5] == 'i';
      const std::string name = each->first.substr(input ? 12 : 13);
      const auto at = memory.emplace(each->first, allocate(each->second)).first->second.get();
      bool accepted = context->setTensorAddress(name.c_str(), at);
      if (input) accepted = accepted && context->setInputShape(name.c_str(), each->second.shape());
      const auto shape = context->getTensorShape(name.c_str()), wanted = each->second.shape();
      for (int i = 0; i < wanted.nbDims; ++i) accepted = accepted && shape.d[i] == wanted.d[i];
      require(accepted && shape.nbDims == wanted.nbDims, "`" + name + "` does not fit the engine");
      const bool is_float = engine->getTensorDataType(name.c_str()) == nvinfer1::DataType::kFLOAT;
      require(input || (is_float && each->second.head.find("<f4") < 64), "`" + name + "` is not float32");
    }
    require(context->enqueueV3(nullptr) && cudaStreamSynchronize(nullptr) == cudaSuccess, "it does not run");
    for (auto output = first; output != each; ++output) {
      if (output->first[5] == 'i') continue;
      const auto* found = static_cast<const float*>(memory.at(output->first).get());
      double worst = 0;  // the share of the bound
      for (std::size_t i = 0; i * sizeof(float) < output->second.bytes.size(); ++i) {
        const double wanted = output->second.at<float>(i), error = std::fabs(found[i] - wanted);
        const bool same = found[i] == wanted || (std::isnan(found[i]) && std::isnan(wanted));
        const double share = same ? 0 : error / (atol + rtol * std::fabs(wanted));
        worst = share <= worst ? worst : std::isnan(share) ? INFINITY : share;
      }
      good = good && worst <= 1;
      std::printf("%s %s: %.3g of the bound\n", worst <= 1 ? "OK" : "FAILED", output->first.c_str(), worst);
    }
  }
  return good;
}

int main(int count, char** paths) {
  try {
    require(count == 2, "usage: check_engine ENGINE");
    return check(paths[1]) ? 0 : 1;
  } catch (const std::exception& error) {
    std::printf("FAILED %s\n", error.what());
    return 1;
  }
}
