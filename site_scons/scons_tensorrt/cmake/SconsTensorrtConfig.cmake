# Engines as outputs of a CMake build, and the C++ loader.
#
#   execute_process(COMMAND scons-tensorrt cmake-dir OUTPUT_VARIABLE dir OUTPUT_STRIP_TRAILING_WHITESPACE)
#   find_package(SconsTensorrt REQUIRED PATHS "${dir}")
#   trt_add_engine(face_engine NAME face ONNX models/face.onnx PRECISION fp16 SHAPES image=1x3x224x224)
#   target_link_libraries(app PRIVATE SconsTensorrt::verified_engine)
#   add_dependencies(app face_engine)
#
# trt_add_engine(<target> NAME <name> ONNX <file> [PRECISION <p>] [HARDWARE <name or file>]
#                [SHAPES <input=shape>...] [OPTIONS <options of `scons-tensorrt build`>...])
# adds a target, built by default, whose property TRT_ENGINE is the path of the engine. The engine is built in
# the binary folder, when the ONNX, its external data, its samples or its plugins are newer; what is up to date
# by content is reused. If other hardware or another TensorRT changes the engine's name, configure again.

cmake_minimum_required(VERSION 3.20)

find_program(SCONS_TENSORRT scons-tensorrt DOC "The command scons-tensorrt")
if(NOT SCONS_TENSORRT)
  set(SconsTensorrt_FOUND FALSE)
  set(SconsTensorrt_NOT_FOUND_MESSAGE "no scons-tensorrt in PATH; activate its environment, or set SCONS_TENSORRT")
  return()
endif()

if(NOT TARGET SconsTensorrt::verified_engine)
  add_library(SconsTensorrt::verified_engine INTERFACE IMPORTED)
  target_include_directories(SconsTensorrt::verified_engine INTERFACE "${CMAKE_CURRENT_LIST_DIR}/../include")
  target_compile_features(SconsTensorrt::verified_engine INTERFACE cxx_std_17)
  find_package(OpenSSL QUIET COMPONENTS Crypto)
  if(OpenSSL_FOUND)
    target_link_libraries(SconsTensorrt::verified_engine INTERFACE OpenSSL::Crypto)
    target_compile_definitions(SconsTensorrt::verified_engine INTERFACE SCONS_TENSORRT_WITH_OPENSSL)
  endif()
endif()

function(trt_add_engine target)
  cmake_parse_arguments(PARSE_ARGV 1 TRT "" "NAME;ONNX;PRECISION;HARDWARE" "SHAPES;OPTIONS")
  if(TRT_UNPARSED_ARGUMENTS OR NOT TRT_NAME OR NOT TRT_ONNX)
    message(FATAL_ERROR "trt_add_engine(${target}): write NAME <name> ONNX <file>, and see the file "
                        "SconsTensorrtConfig.cmake; got: ${ARGN}")
  endif()
  if(NOT TRT_PRECISION)
    set(TRT_PRECISION fp32)
  endif()
  set(named --precision ${TRT_PRECISION})
  if(TRT_HARDWARE)
    foreach(file "${TRT_HARDWARE}" "hardware/${TRT_HARDWARE}.json")
      get_filename_component(file "${file}" ABSOLUTE)
      if(EXISTS "${file}" AND NOT IS_DIRECTORY "${file}")
        set(TRT_HARDWARE "${file}")
        set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS "${file}")
        break()
      endif()
    endforeach()
    list(APPEND named --hardware ${TRT_HARDWARE})
  endif()
  execute_process(
    COMMAND "${SCONS_TENSORRT}" name build "${TRT_NAME}" ${named}
    WORKING_DIRECTORY "${CMAKE_CURRENT_BINARY_DIR}"
    RESULT_VARIABLE status OUTPUT_VARIABLE engine ERROR_VARIABLE error
    OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_STRIP_TRAILING_WHITESPACE)
  if(NOT status EQUAL 0)
    message(FATAL_ERROR "trt_add_engine(${target}): ${error}")
  endif()
  set(engine "${CMAKE_CURRENT_BINARY_DIR}/${engine}")
  get_filename_component(onnx "${TRT_ONNX}" ABSOLUTE)
  list(TRANSFORM TRT_SHAPES PREPEND --shape=)
  set(depfile "${CMAKE_CURRENT_BINARY_DIR}/${target}.d")
  add_custom_command(
    OUTPUT "${engine}" "${engine}.sha256"
    COMMAND "${SCONS_TENSORRT}" build "${onnx}" --name ${TRT_NAME} ${named} ${TRT_SHAPES} ${TRT_OPTIONS}
            --depfile "${depfile}"
    DEPENDS "${onnx}"
    DEPFILE "${depfile}"
    WORKING_DIRECTORY "${CMAKE_CURRENT_BINARY_DIR}"
    COMMENT "Engine ${TRT_NAME} (${TRT_PRECISION})"
    VERBATIM)
  add_custom_target(${target} ALL DEPENDS "${engine}" "${engine}.sha256")
  set_target_properties(${target} PROPERTIES TRT_ENGINE "${engine}")
endfunction()
