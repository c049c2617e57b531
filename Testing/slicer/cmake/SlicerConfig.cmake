# Stands in for an installed Slicer where none can be built: the names of Slicer 5.12 that an extension of scripted
# modules uses, copying and installing files as Slicer does. Unknown arguments are errors. Another version's folders:
# -DSlicer_VERSION=5.10

set(Slicer_VERSION 5.12 CACHE STRING "Version of Slicer whose layout is made")
string(REPLACE "." ";" _version ${Slicer_VERSION})
list(GET _version 0 Slicer_VERSION_MAJOR)
list(GET _version 1 Slicer_VERSION_MINOR)
set(_layout Slicer-${Slicer_VERSION_MAJOR}.${Slicer_VERSION_MINOR})
set(Slicer_QTSCRIPTEDMODULES_LIB_DIR lib/${_layout}/qt-scripted-modules)
set(Slicer_INSTALL_QTSCRIPTEDMODULES_LIB_DIR ${Slicer_QTSCRIPTEDMODULES_LIB_DIR})
set(Slicer_SHARE_DIR share/${_layout})
set(Slicer_USE_FILE ${CMAKE_CURRENT_LIST_DIR}/UseSlicer.cmake)
set(Slicer_EXTENSION_GENERATE_CONFIG ${CMAKE_CURRENT_LIST_DIR}/ExtensionGenerateConfig.cmake)
set(Slicer_EXTENSION_CPACK ${CMAKE_CURRENT_LIST_DIR}/ExtensionCPack.cmake)
set(Slicer_LAUNCHER_EXECUTABLE Slicer)
set(Slicer_FOUND TRUE)
