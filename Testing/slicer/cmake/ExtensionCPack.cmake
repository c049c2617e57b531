# The archive that Slicer's "Install extension from file" takes: one folder, in it the module in Slicer's layout, and
# the description (.s4ext) by which Slicer knows the extension's name; without it Slicer refuses the archive.
execute_process(COMMAND git rev-parse --short HEAD WORKING_DIRECTORY ${CMAKE_SOURCE_DIR}
  OUTPUT_VARIABLE _revision OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
if(NOT _revision)
  set(_revision NA)
endif()
file(WRITE ${CMAKE_BINARY_DIR}/${EXTENSION_NAME}.s4ext "# A keyword and its value a line
scm git
scmurl ${EXTENSION_HOMEPAGE}
scmrevision ${_revision}
depends ${EXTENSION_DEPENDS}
build_subdirectory .
homepage ${EXTENSION_HOMEPAGE}
contributors ${EXTENSION_CONTRIBUTORS}
category ${EXTENSION_CATEGORY}
iconurl ${EXTENSION_ICONURL}
status
description ${EXTENSION_DESCRIPTION}
screenshoturls ${EXTENSION_SCREENSHOTURLS}
enabled 1
")
install(FILES ${CMAKE_BINARY_DIR}/${EXTENSION_NAME}.s4ext DESTINATION ${Slicer_SHARE_DIR} COMPONENT RuntimeLibraries)

set(CPACK_GENERATOR TGZ)
set(CPACK_PACKAGE_FILE_NAME ${EXTENSION_NAME}-git${_revision}-${_layout})
set(CPACK_INSTALL_CMAKE_PROJECTS "${CMAKE_BINARY_DIR};${EXTENSION_NAME};ALL;/")
include(CPack)
