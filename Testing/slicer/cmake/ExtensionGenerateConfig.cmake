# What Slicer asks of the description of an extension.
set(EXTENSION_NAME ${PROJECT_NAME})
foreach(_name HOMEPAGE CATEGORY CONTRIBUTORS DESCRIPTION ICONURL SCREENSHOTURLS DEPENDS)
  if("${EXTENSION_${_name}}" STREQUAL "")
    message(FATAL_ERROR "EXTENSION_${_name} is empty")
  endif()
  file(APPEND ${CMAKE_BINARY_DIR}/description.txt "${_name}=${EXTENSION_${_name}}\n")
endforeach()
